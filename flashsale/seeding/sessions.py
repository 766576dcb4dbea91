"""Sessions for the users of a data set, and the file that says which is whose.

Those that still live are kept, the rest is made. The file is secret: 0600 from its first byte on.
"""

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import Self, cast

from redis import Redis

from flashsale.accounts.sessions import Owner, creation, draw_token
from flashsale.errors import UsageError
from flashsale.files import private_folder
from flashsale.keys import Layout
from flashsale.lua.scripts import Call, script
from flashsale.model import parse_id
from flashsale.scenario.tokens import HEAD
from flashsale.seeding.dataset import Dataset
from flashsale.settings import SessionSettings
from flashsale.storage.roles import Ledgers, ledgers

BATCH = 500
"""Sessions of one script: with `appendfsync always` they share one fsync, and nobody else waits
longer for the ledger than they take, a few milliseconds."""

_READ = script("session_read")

Held = tuple[int, str]


class SessionMaker:
    """Brings sessions into the ledger. Its calls may raise redis' errors; see `stores.opened`."""

    def __init__(
        self, ledger: Redis | Ledgers, dataset: Dataset, settings: SessionSettings
    ) -> None:
        self._ledgers = ledgers(ledger)
        self._dataset = dataset
        self._settings = settings

    def __repr__(self) -> str:
        return f"<SessionMaker {self._dataset!r}>"

    def ensure(self, pairs: Sequence[tuple[int, str | None]]) -> tuple[list[Held], int]:
        """The users of `pairs` with a token that is valid now, and how many of those are new.

        A token that is held stays if its session lives and is that user's. A user beyond the
        data set gets no new one and is left out.
        """
        tokens = self._alive([(user_id, token) for user_id, token in pairs if token])
        wanted = [user_id for user_id, _ in pairs if user_id <= self._dataset.users]
        made = {
            user_id: draw_token(self._layout, user_id)
            for user_id in wanted
            if user_id not in tokens
        }
        self._create(made)
        tokens |= made
        return [(user_id, tokens[user_id]) for user_id, _ in pairs if user_id in tokens], len(made)

    def _alive(self, held: Sequence[Held]) -> dict[int, str]:
        if not held:
            return {}
        alive: dict[int, str] = {}
        for ledger, lane in zip(self._ledgers.clients, self._layout.lanes, strict=True):
            mine = [pair for pair in held if self._layout.of_token(pair[1]) is lane]
            if mine:
                names = [lane.login_token(token) for _, token in mine]
                owners = _run(ledger, Call(_READ, names, self._settings.sliding_ms))
                pairs = zip(mine, cast(list[str], owners), strict=True)
                alive |= {user: token for (user, token), owner in pairs if owner == str(user)}
        return alive

    def _create(self, tokens: dict[int, str]) -> None:
        for ledger, lane in zip(self._ledgers.clients, self._layout.lanes, strict=True):
            mine = [user_id for user_id in tokens if self._layout.of_user(user_id) is lane]
            if not mine:
                continue
            users = [self._dataset.user(user_id) for user_id in mine]
            owners = [Owner(user_id, nick_name, icon) for user_id, _, nick_name, icon in users]
            wanted = [tokens[user_id] for user_id in mine]
            call = creation(wanted, owners, self._settings, self._layout)
            leaving = cast(list[str], _run(ledger, call))
            if leaving:
                ledger.unlink(*leaving)

    @property
    def _layout(self) -> Layout:
        return self._ledgers.layout


def _run(ledger: Redis, call: Call) -> object:
    return ledger.eval(call.script.text, len(call.keys), *call.keys, *call.args)


def batches(
    pairs: Iterable[tuple[int, str | None]],
) -> Iterator[list[tuple[int, str | None]]]:
    """`pairs`, BATCH at a time."""
    rest = iter(pairs)
    while batch := list(islice(rest, BATCH)):
        yield batch


_MODE = 0o600
_TOKEN = re.compile(r"[!-+\--~]{1,128}")  # visible ASCII without a comma


def read_seeded_tokens(path: Path) -> Iterator[tuple[int, str]]:
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


def check_tokens(path: Path) -> None:
    """Raises UsageError for a file that `seed` did not write, and would replace."""
    for _ in read_seeded_tokens(path):
        pass


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
            private_folder(self.path.parent)
            self._partial.unlink(missing_ok=True)  # a killed run's
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
            self._file = os.fdopen(os.open(self._partial, flags, _MODE), "w", encoding="ascii")
            self._file.write(f"{HEAD}\n")
        return self

    def __exit__(self, *_: object) -> None:
        # What it still holds is for no file: all of one in place is on disk.
        with suppress(OSError):
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
