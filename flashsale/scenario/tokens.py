"""The tokens file that `seed` writes: who may buy, and with which session."""

import re
from collections.abc import Collection, Iterator
from itertools import islice
from pathlib import Path

from flashsale.errors import UsageError
from flashsale.model import ID_MAX

HEAD = "user_id,token"
_ROW = re.compile(r"([0-9]{1,19}),([!-+\--~]{1,512})\s*")
"""A user id and a token of visible ASCII without a comma, which is safe inside a header."""


def read_tokens(path: Path, users: int) -> dict[int, str]:
    """The first `users` user ids with their tokens, in the file's order.

    Raises UsageError where the file is missing, too short or malformed; the line names the cure.
    """
    cure = f"run `flashsale seed --users {users}`"
    try:
        with path.open(encoding="utf-8") as lines:
            if next(lines, "").strip() != HEAD:
                raise UsageError(f"{path}, line 1: expected {HEAD!r}; {cure}")
            tokens = dict(_rows(islice(lines, users), path))
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise UsageError(f"tokens file {path}: {reason}; {cure}") from error
    if len(tokens) < users:
        raise UsageError(f"{path} has tokens of {len(tokens):,} users, not {users:,}; {cure}")
    return tokens


def read_tokens_of(path: Path, users: Collection[int]) -> dict[int, str]:
    """The tokens of these users, wherever in the file they stand.

    Raises UsageError where the file is missing or malformed, or one of them is not in it.
    """
    cure = "give the --tokens of the data set that the plan is of"
    wanted = set(users)
    try:
        with path.open(encoding="utf-8") as lines:
            if next(lines, "").strip() != HEAD:
                raise UsageError(f"{path}, line 1: expected {HEAD!r}; {cure}")
            tokens = {user: token for user, token in _rows(lines, path) if user in wanted}
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise UsageError(f"tokens file {path}: {reason}; {cure}") from error
    if missing := wanted - tokens.keys():
        raise UsageError(
            f"{path} has no token of {len(missing):,} of the plan's {len(wanted):,} users, "
            f"such as user {min(missing)}; {cure}"
        )
    return tokens


def _rows(lines: Iterator[str], path: Path) -> Iterator[tuple[int, str]]:
    seen: set[int] = set()
    for number, line in enumerate(lines, start=2):
        row = _ROW.fullmatch(line)
        user_id = int(row[1]) if row else 0
        if row is None or not 1 <= user_id <= ID_MAX:
            raise UsageError(f"{path}, line {number}: expected a user id, a comma and a token")
        if user_id in seen:
            raise UsageError(f"{path}, line {number}: user {user_id} stands there twice")
        seen.add(user_id)
        yield user_id, row[2]
