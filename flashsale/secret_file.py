"""Secrets from files: a password that stands in no environment and on no command line.

`<VARIABLE>_FILE` names a file that holds what `<VARIABLE>` would, as the secrets of Docker, Compose
and Kubernetes come.
"""

import os
from pathlib import Path
from urllib.parse import quote, urlsplit

from flashsale.errors import UsageError

STORE_PASSWORDS = (
    "FLASHSALE_LEDGER_PASSWORD",
    "FLASHSALE_CACHE_PASSWORD",
    "FLASHSALE_MYSQL_PASSWORD",
    "FLASHSALE_BOOKS_PASSWORD",
    "FLASHSALE_BOOKS_REDIS_PASSWORD",
)
"""Passwords of the stores' URLs; each is taken from its file alone."""


def read_secret(variable: str) -> str | None:
    """The secret in the file that `<variable>_FILE` names; None where that is not set.

    White space around it is no part of it. Raises UsageError for a file that cannot be read or
    holds nothing.
    """
    name = f"{variable}_FILE"
    place = os.environ.get(name)
    if not place:
        return None
    try:
        secret = Path(place).read_text(encoding="utf-8").strip()
    except UnicodeDecodeError:
        raise UsageError(f"{name}: expected text, got {place}") from None
    except OSError as error:
        raise UsageError(f"{name}: cannot read {place} ({error.strerror})") from None
    if not secret:
        raise UsageError(f"{name}: expected a secret, but {place} is empty")
    return secret


def with_password(url: str, variable: str) -> str:
    """The URL with the password in the file of `variable`; one that it has already stays."""
    try:
        parts = urlsplit(url)
    except ValueError:  # not a URL: whoever connects to it says so
        return url
    if parts.password is not None:
        return url
    password = read_secret(variable)
    if password is None:
        return url
    _, _, host = parts.netloc.rpartition("@")
    login = f"{parts.username or ''}:{quote(password, safe='')}"
    return parts._replace(netloc=f"{login}@{host}").geturl()
