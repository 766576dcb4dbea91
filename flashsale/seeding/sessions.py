"""Sessions for the users of a data set: those that still live are kept, the rest is made."""

import secrets
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import cast

from redis import Redis

from flashsale import keys
from flashsale.lua.scripts import Script, script
from flashsale.seeding.dataset import Dataset
from flashsale.settings import SessionSettings

BATCH = 500
"""Sessions of one script: with `appendfsync always` they share one fsync, and nobody else waits
longer for the ledger than they take, a few milliseconds."""

_CREATE = script("session_create")
_READ = script("session_read")

Held = tuple[int, str]


class SessionMaker:
    """Brings sessions into the ledger. Its calls may raise redis' errors; see `stores.opened`."""

    def __init__(self, ledger: Redis, dataset: Dataset, settings: SessionSettings) -> None:
        self._ledger = ledger
        self._dataset = dataset
        self._lifetime_ms = settings.lifetime_minutes * 60_000
        self._refresh_ms = settings.refresh_interval_s * 1000

    def __repr__(self) -> str:
        return f"<SessionMaker {self._dataset!r}>"

    def ensure(self, pairs: Sequence[tuple[int, str | None]]) -> tuple[list[Held], int]:
        """The users of `pairs` with a token that is valid now, and how many of those are new.

        A token that is held stays if its session lives and is that user's. A user beyond the
        data set gets no new one and is left out.
        """
        tokens = self._alive([(user_id, token) for user_id, token in pairs if token])
        wanted = [user_id for user_id, _ in pairs if user_id <= self._dataset.users]
        made = {user_id: secrets.token_hex(16) for user_id in wanted if user_id not in tokens}
        self._create(made)
        tokens |= made
        return [(user_id, tokens[user_id]) for user_id, _ in pairs if user_id in tokens], len(made)

    def _alive(self, held: Sequence[Held]) -> dict[int, str]:
        if not held:
            return {}
        owners = self._run(
            _READ,
            [keys.login_token(token) for _, token in held],
            [self._lifetime_ms, self._refresh_ms],
        )
        pairs = zip(held, cast(list[str], owners), strict=True)
        return {user_id: token for (user_id, token), owner in pairs if owner == str(user_id)}

    def _create(self, tokens: dict[int, str]) -> None:
        if not tokens:
            return
        values: list[str | int] = [self._lifetime_ms]
        for user_id in tokens:
            _, _, nick_name, icon = self._dataset.user(user_id)
            values += (user_id, nick_name, icon)
        self._run(_CREATE, [keys.login_token(token) for token in tokens.values()], values)

    def _run(self, body: Script, names: Sequence[str], values: Sequence[str | int]) -> object:
        return self._ledger.eval(body.text, len(names), *names, *values)


def batches(
    pairs: Iterable[tuple[int, str | None]],
) -> Iterator[list[tuple[int, str | None]]]:
    """`pairs`, BATCH at a time."""
    rest = iter(pairs)
    while batch := list(islice(rest, BATCH)):
        yield batch
