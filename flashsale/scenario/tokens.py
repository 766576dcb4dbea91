"""The tokens file: who may buy, and with which session. `seed` writes it, people bring their own.

A head `user_id,token`, then a line a user, as spreadsheets and shells leave such files: with or
without a byte-order mark, quotes, spaces around a field, blank lines, either end of line. A token
is sent as it stands, as the value of `authorization`; that may be `Bearer …`.
"""

import csv
import re
from collections.abc import Callable, Collection, Iterable, Iterator
from itertools import islice
from pathlib import Path

from flashsale.errors import UsageError
from flashsale.model import ID_MAX, id_of, text_id

HEAD = "user_id,token"
NOT_UTF8 = "not UTF-8 text; save it as UTF-8"
TOKEN_LENGTH_MAX = 8_000
"""What servers take in one header: nginx and Tomcat 8 KiB, with its name."""

_USER_ID = re.compile(r"[0-9]{1,19}")
_TOKEN = re.compile(r"[!-~]+(?: [!-~]+)*")
"""Visible ASCII and single spaces within, which is safe inside a header."""


def read_tokens(path: Path, users: int) -> dict[int, str]:
    """The first `users` user ids with their tokens, in the file's order.

    Raises UsageError where the file is missing, too short or malformed; the line names the cure.
    """
    cure = f"run `flashsale seed --users {users}`, or give --tokens a file of yours"
    tokens = _read(path, cure, lambda rows: dict(islice(rows, users)))
    if len(tokens) < users:
        raise UsageError(f"{path} has tokens of {len(tokens):,} users, not {users:,}; {cure}")
    return tokens


def read_tokens_of(path: Path, users: Collection[int]) -> dict[int, str]:
    """The tokens of these users, wherever in the file they stand.

    Raises UsageError where the file is missing or malformed, or one of them is not in it.
    """
    cure = "give the --tokens of the data set that the plan is of"
    wanted = set(users)
    tokens = _read(path, cure, lambda rows: {user: it for user, it in rows if user in wanted})
    if missing := wanted - tokens.keys():
        raise UsageError(
            f"{path} has no token of {len(missing):,} of the plan's {len(wanted):,} users, "
            f"such as user {min(missing)}; {cure}"
        )
    return tokens


# Users of somebody's shop -------------------------------------------------------------------------

ID_COLUMN = "user_id"
_COLUMNS_MAX = 64


def read_users(
    path: Path, columns: Collection[str], users: int, by: str = ID_COLUMN
) -> dict[int, dict[str, str]]:
    """The first `users` users of a shop, by a number for each, with what their file says of them.

    The head names the columns, whose values can be any text; the column `by` is the user's id, and
    `user_id` in what is returned. Raises UsageError.
    """
    found = dict(islice(_users(path, columns, by), users))
    if len(found) < users:
        raise UsageError(f"{path} has {len(found):,} users, not {users:,}; add some, or ask fewer")
    return found


def read_users_of(
    path: Path, columns: Collection[str], users: Collection[int], by: str = ID_COLUMN
) -> dict[int, dict[str, str]]:
    """The same of these users, wherever in the file they stand."""
    wanted = set(users)
    found = {user: row for user, row in _users(path, columns, by) if user in wanted}
    if missing := wanted - found.keys():
        raise UsageError(
            f"{path} lacks {len(missing):,} of the plan's {len(wanted):,} users; "
            "give the --tokens that the plan was made of"
        )
    return found


def _users(path: Path, columns: Collection[str], by: str) -> Iterator[tuple[int, dict[str, str]]]:
    needed = [by, *sorted(set(columns) - {by, ID_COLUMN})]
    try:
        with path.open(encoding="utf-8-sig", newline="") as lines:
            table = csv.reader(lines, skipinitialspace=True, strict=True)
            try:
                yield from _users_in(table, needed)
            except UnicodeDecodeError:
                raise
            except (ValueError, csv.Error) as error:
                raise UsageError(f"{path}, line {table.line_num}: {error}") from error
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else NOT_UTF8
        raise UsageError(
            f"users' file {path}: {reason}; give --tokens a file whose first line is "
            f"{','.join(needed)}"
        ) from error


def _users_in(
    table: Iterator[list[str]], needed: list[str]
) -> Iterator[tuple[int, dict[str, str]]]:
    head: list[str] = []
    seen: set[int] = set()
    for cells in table:
        fields = [cell.strip() for cell in cells]
        if not any(fields):
            continue
        if not head:
            head = fields
            _ensure_commas(head)
            missing = sorted(set(needed) - set(head))
            if missing or len(set(head)) != len(head) or len(head) > _COLUMNS_MAX:
                lacks = f", which lacks {', '.join(missing)}" if missing else ", not each name once"
                raise ValueError(
                    f"found the head {','.join(head)[:80]!r}{lacks}; write a first line that names "
                    f"{', '.join(needed)}, each once, or say in the shop's file what they are "
                    "called (target.user_column, {user.COLUMN})"
                )
            continue
        if len(fields) != len(head):
            raise ValueError(f"found {len(fields)} fields, expected {len(head)} as in the head")
        row = dict(zip(head, fields, strict=True))
        for name, value in row.items():
            if len(value) > TOKEN_LENGTH_MAX or not (value.isprintable() or not value):
                raise ValueError(f"{name}: expected text that can be shown, not too long")
        row[ID_COLUMN] = row[needed[0]]
        if text_id(row[ID_COLUMN]) is None:
            raise ValueError(f"found {row[ID_COLUMN][:40]!r}, expected a user id")
        user = id_of(row[ID_COLUMN])
        if user in seen:
            raise ValueError(f"user {row[ID_COLUMN]} stands there twice; leave one of them out")
        seen.add(user)
        yield user, row
    if not head:
        raise ValueError(f"expected a head, such as {','.join(needed)}")


def _ensure_commas(head: list[str]) -> None:
    """Raises ValueError for what a spreadsheet saved with its country's separator."""
    apart = next((sign for sign in ";\t|" if sign in head[0]), None)
    if len(head) == 1 and apart is not None:
        raise ValueError(f"found {apart!r} between the fields; save it with commas between them")


_Rows = Iterator[tuple[int, str]]


def _read(path: Path, cure: str, take: Callable[[_Rows], dict[int, str]]) -> dict[int, str]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as lines:
            return take(_rows(lines, path, cure))
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else NOT_UTF8
        raise UsageError(f"tokens file {path}: {reason}; {cure}") from error


def _rows(lines: Iterable[str], path: Path, cure: str) -> _Rows:
    table = csv.reader(lines, skipinitialspace=True, strict=True)
    seen: set[int] = set()
    headed = False
    try:
        for cells in table:
            fields = [cell.strip() for cell in cells]
            if not any(fields):
                continue
            if not headed:
                headed = True
                _ensure_commas(fields)
                if ",".join(fields).lower() != HEAD:
                    raise ValueError(f"expected {HEAD!r}; write that above the users, or {cure}")
                continue
            user_id, token = _row(fields)
            if user_id in seen:
                raise ValueError(f"user {user_id} stands there twice; leave one of them out")
            seen.add(user_id)
            yield user_id, token
    except UnicodeDecodeError:
        raise
    except (ValueError, csv.Error) as error:
        raise UsageError(f"{path}, line {table.line_num}: {error}") from error
    if not headed:
        raise UsageError(f"{path}, line 1: expected {HEAD!r}; {cure}")


def _row(fields: list[str]) -> tuple[int, str]:
    """User id and token. Raises ValueError with what is wrong and what to write, and without the
    token, which is a secret."""
    if len(fields) != 2:
        found = "no comma" if len(fields) == 1 else f"{len(fields)} fields"
        raise ValueError(
            f"found {found}, expected a user id, a comma and a token, such as 17,Bearer abc "
            "(in quotes where the token has a comma)"
        )
    user, token = fields
    if not _USER_ID.fullmatch(user) or not 1 <= int(user) <= ID_MAX:
        raise ValueError(f"found {user[:40]!r}, expected a user id: a whole number from 1 on")
    if len(token) > TOKEN_LENGTH_MAX:
        raise ValueError(
            f"a token of {len(token):,} characters, expected at most {TOKEN_LENGTH_MAX:,}: "
            "servers take no longer header"
        )
    if not _TOKEN.fullmatch(token):
        odd = next((sign for sign in token if not "!" <= sign <= "~" and sign != " "), None)
        why = "no token" if not token else f"{odd!r} in the token" if odd else "spaces in a row"
        raise ValueError(
            f"found {why}, expected what the header `authorization` is to say: visible ASCII and "
            "single spaces"
        )
    return int(user), token
