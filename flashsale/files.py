"""Files of ours: those that ship beside the code, and those that nobody but this user can read,
whatever the umask: secrets, state, and a password that stands in no environment and on no command
line.

`<VARIABLE>_FILE` names a file that holds what `<VARIABLE>` would, as the secrets of Docker, Compose
and Kubernetes come.
"""

import os
import secrets
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO
from urllib.parse import quote, urlsplit

from flashsale.errors import UsageError

_PACKAGE = Path(__file__).resolve().parent


def resource(name: str) -> Path:
    """The path of `scenarios/…` or `deploy/…`, in a wheel or in a checkout."""
    shipped = _PACKAGE / name
    return shipped if shipped.exists() else _PACKAGE.parent / name


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


_FILE_MODE, _FOLDER_MODE = 0o600, 0o700


def private_folder(folder: Path) -> Path:
    """`folder` and those above it that are missing, each for this user alone. Raises OSError.

    A folder that exists already stays as it is.
    """
    for place in (*reversed(folder.parents), folder):
        with suppress(FileExistsError):
            if not place.exists():
                place.mkdir(_FOLDER_MODE)
    folder.mkdir(_FOLDER_MODE, exist_ok=True)  # raises where a file has the name
    return folder


def write_private(path: Path, text: str) -> Path:
    """Put `text`, as UTF-8, at `path`, whole or not at all, for this user alone. Raises OSError.

    A byte of a path that is no UTF-8 comes out as it was.
    """
    draft = path.with_name(f".{path.name}-{secrets.token_hex(4)}")
    try:
        with open_private(draft, os.O_EXCL) as file:
            file.write(text.encode("utf-8", "surrogateescape"))
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    return path


def open_private(path: Path, flags: int = os.O_APPEND) -> BinaryIO:
    """The file at `path`, open to be written to its end, for this user alone. Raises OSError."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | flags, _FILE_MODE)
    with suppress(PermissionError):  # somebody else's, whom a group lets us write for
        os.fchmod(descriptor, _FILE_MODE)
    return os.fdopen(descriptor, "wb")
