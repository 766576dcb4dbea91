"""The tokens file: which session is whose. Secret, so 0600 from its first byte on."""

import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from flashsale.errors import UsageError
from flashsale.model import parse_id

HEAD = "user_id,token"
_MODE = 0o600
_TOKEN = re.compile(r"[!-+\--~]{1,128}")  # visible ASCII without a comma


def read_tokens(path: Path) -> Iterator[tuple[int, str]]:
    """The user ids and tokens of an earlier run, ascending; nothing where there is no file.

    Raises UsageError for a file that `seed` did not write.
    """
    try:
        with path.open(encoding="ascii") as lines:
            yield from _rows(lines, path)
    except FileNotFoundError:
        return
    except UnicodeDecodeError:
        raise UsageError(f"{path}: expected {HEAD!r} and ASCII lines; move it away") from None
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}; name another file with --tokens") from error


def paired(users: int, held: Iterable[tuple[int, str]]) -> Iterator[tuple[int, str | None]]:
    """Every user from 1 to `users` with the token held, or None; then the others that are held.

    `held` is ascending, and so is what comes of it.
    """
    following = 1
    for user_id, token in held:
        yield from ((absent, None) for absent in range(following, min(user_id, users + 1)))
        yield user_id, token
        following = user_id + 1
    yield from ((absent, None) for absent in range(following, users + 1))


class TokensFile:
    """A tokens file being written beside the one in place, which it replaces at the end."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._partial = path.with_name(f"{path.name}.partial")

    def __repr__(self) -> str:
        return f"<TokensFile {self.path}>"

    def __enter__(self) -> Self:
        with _complaining(self.path):
            if self.path.is_dir():
                raise IsADirectoryError(0, "is a folder")
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._partial.unlink(missing_ok=True)  # a killed run's
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
            self._file = os.fdopen(os.open(self._partial, flags, _MODE), "w", encoding="ascii")
            self._file.write(f"{HEAD}\n")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()
        self._partial.unlink(missing_ok=True)  # unless it was put in place

    def write(self, rows: Iterable[tuple[int, str]]) -> None:
        """Append users and their tokens, ascending. Raises UsageError where the disk refuses."""
        with _complaining(self.path):
            self._file.writelines(f"{user_id},{token}\n" for user_id, token in rows)

    def put_in_place(self) -> None:
        """Make the new file the tokens file, in one step and on disk."""
        with _complaining(self.path):
            self._file.flush()
            os.fsync(self._file.fileno())
            self._partial.replace(self.path)

    def is_current(self) -> bool:
        """Whether the file in place may stay: it exists and only its owner can read it."""
        return self.path.is_file() and self.path.stat().st_mode & 0o777 == _MODE


@contextmanager
def _complaining(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UsageError(
            f"{path} cannot be written: {error.strerror}; name another file with --tokens"
        ) from error


def _rows(lines: Iterable[str], path: Path) -> Iterator[tuple[int, str]]:
    before = 0
    for number, line in enumerate(lines, start=1):
        text = line.rstrip("\n")
        if number == 1:
            if text != HEAD:
                raise UsageError(f"{path}, line 1: expected {HEAD!r}; move it away")
            continue
        user, _, token = text.partition(",")
        user_id = parse_id(user)
        if user_id is None or user_id <= before or not _TOKEN.fullmatch(token):
            raise UsageError(
                f"{path}, line {number}: expected a user id above {before}, a comma and a token; "
                "move the file away"
            )
        yield user_id, token
        before = user_id
