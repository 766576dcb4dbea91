"""Sessions: how they are made, who is behind a token, and how often a user may claim.

Look-ups leave together, as claims do.
"""

import asyncio
import math
import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from time import monotonic
from typing import NamedTuple

from flashsale.errors import Indeterminate, Unavailable
from flashsale.keys import SINGLE, Layout
from flashsale.lua.scripts import Call, script
from flashsale.model import parse_id
from flashsale.settings import SessionSettings
from flashsale.storage.channel import Channel, Plain
from flashsale.storage.gate import Bounds, Gate, GateFull, Rounds
from flashsale.store_urls import layout_of

TOKEN_LENGTH_MAX = 128
_READ = script("session_read")
_CREATE = script("session_create")
_RENEW_AFTER_S = 0.1
_DIGITS = 16  # fewer have an instant in Unix ms for the next thousands of years
_TIME = Plain(("TIME",))
_UNREAD = ("?", None)  # in place of the fields of what is no session, or is not told


class Owner(NamedTuple):
    """Who a session is to be of."""

    user_id: int
    nick_name: str
    icon: str


def draw_token(layout: Layout, user_id: int) -> str:
    """A new token of this user: one that is in the user's lane, by chance the first on a whole
    ledger, and about the sixth on a cluster."""
    while True:
        token = secrets.token_hex(16)
        if layout.of_token(token) is layout.of_user(user_id):
            return token


def creation(
    tokens: Sequence[str],
    owners: Sequence[Owner],
    settings: SessionSettings,
    layout: Layout = SINGLE,
) -> Call:
    """The call that makes a session a token; on a cluster, of users in one lane. Its reply is the
    keys of sessions that have to give way, which its caller deletes. Pure."""
    longest_ms = settings.longest_minutes * 60_000
    names: list[str] = []
    values: list[str | int] = [settings.lifetime_minutes * 60_000, longest_ms]
    values.append(settings.per_user_max)
    for token, owner in zip(tokens, owners, strict=True):
        lane = layout.of_user(owner.user_id)
        names += (lane.login_token(token), lane.login_sessions(owner.user_id))
        values += owner
    return Call(_CREATE, names, values)


class Sessions:
    """The session look-ups of one replica: a gate for each lane, which on a whole ledger is one."""

    def __init__(self, ledger_url: str, settings: SessionSettings) -> None:
        self._sliding_ms = settings.sliding_ms
        self._renewals: dict[Channel, dict[str, int]] = {}  # sessions, which wait for others
        self._renewing: set[asyncio.Task[None]] = set()
        self._layout = layout_of(ledger_url)
        self._key = self._layout.home.login_token if self._layout.is_whole else self._spelled
        self.channels = [
            Channel(
                ledger_url,
                connections_max=settings.calls_max,
                timeout_s=settings.timeout_ms / 1000,
                lane=lane,
            )
            for lane in self._layout.lanes
        ]
        bounds = Bounds(settings.batch_max, settings.calls_max, settings.queue_max)
        self.rounds = None if self._layout.is_whole else Rounds()
        """Those of the ledger's lanes, which claims share."""
        self.gates: list[Gate[str, int | None]] = [
            Gate(partial(self._read, channel), bounds, rounds=self.rounds)
            for channel in self.channels
        ]

    def __repr__(self) -> str:
        return f"<Sessions {self.gates!r}>"

    @property
    def gate(self) -> Gate[str, int | None]:
        """The one of a whole ledger."""
        return self.gates[0]

    @property
    def named_gates(self) -> Mapping[str, Gate[str, int | None]]:
        """Its gates by name."""
        return dict(zip(self._names, self.gates, strict=True))

    @property
    def named_channels(self) -> Mapping[str, Channel]:
        """Its connections by name."""
        return dict(zip(self._names, self.channels, strict=True))

    @property
    def _names(self) -> list[str]:
        tags = [lane.tag for lane in self._layout.lanes]
        return [f"session_{tag}" if tag else "session" for tag in tags]

    def key_of(self, token: str) -> str | None:
        """The key of the session that `token` may open, None where it can open none."""
        return self._key(token) if 0 < len(token) <= TOKEN_LENGTH_MAX else None

    def _spelled(self, token: str) -> str:
        return self._layout.of_token(token).login_token(token)

    async def user_of(self, token: str) -> int | None:
        """The id of the user behind `token`, None where there is no valid session.

        Raises Unavailable when that cannot be known, since "no session" would be a lie.
        """
        session = self.key_of(token)
        return None if session is None else await self.user_behind(session)

    async def user_behind(self, session: str) -> int | None:
        """The same by the session's key."""
        lane = self._layout.of_key(session)
        if lane is None:
            return None
        try:
            return await self.gates[lane.number].enter(session)
        except (GateFull, Indeterminate) as error:
            raise Unavailable("sessions cannot be read") from error

    async def aclose(self) -> None:
        """Close the connections."""
        self._renewals.clear()
        await asyncio.gather(*self._renewing)
        for channel in self.channels:
            await channel.aclose()

    async def _read(self, channel: Channel, session_keys: list[str]) -> Sequence[int | None]:
        """Who is behind each. Plain commands cost the ledger two thirds of the script, which has
        those that are not as they should be."""
        asked = [_TIME]
        for key in session_keys:
            asked += (Plain(("HMGET", key, "id", "end")), Plain(("PTTL", key)))
        time, *found = await channel.run(asked)
        if isinstance(time, (Unavailable, Indeterminate)):
            raise time
        now_ms = int(time[0]) * 1000 + int(time[1]) // 1000
        full_ms, refresh_ms, _ = self._sliding_ms
        users: list[int | None] = []
        others: list[int] = []
        for i, (fields, left_ms) in enumerate(zip(found[::2], found[1::2], strict=True)):
            user_id, end = fields if isinstance(fields, list) else _UNREAD
            users.append(parse_id(user_id) if user_id else None)
            if user_id is None:
                continue
            wanted_ms = min(full_ms, _instant_ms(end) - now_ms)
            if wanted_ms <= 0 or not isinstance(left_ms, int):
                others.append(i)
            elif left_ms < wanted_ms - refresh_ms:
                self._renew(channel, session_keys[i], now_ms + wanted_ms)
        if others:
            call = Call(_READ, [session_keys[i] for i in others], self._sliding_ms)
            for i, user_id in zip(others, await channel.evaluate(call), strict=True):
                users[i] = parse_id(user_id)
        return users

    def _renew(self, channel: Channel, session: str, until_ms: int) -> None:
        """Push the expiry of a session out, soon and with others': where nothing is sold, that is
        all that the ledger writes, and each write is an fsync."""
        renewals = self._renewals.setdefault(channel, {})
        if not renewals:
            asyncio.get_running_loop().call_later(_RENEW_AFTER_S, self._send_renewals, channel)
        renewals[session] = until_ms

    def _send_renewals(self, channel: Channel) -> None:
        renewals = self._renewals.pop(channel, None)
        if renewals is None:  # it is closed
            return

        async def send() -> None:
            with suppress(Unavailable):  # the next look-up tries again
                await channel.run([Plain(("PEXPIREAT", *each)) for each in renewals.items()])

        self._renewing.add(task := asyncio.ensure_future(send()))
        task.add_done_callback(self._renewing.discard)


def _instant_ms(text: str | None) -> int:
    """Unix ms as the ledger tells them; 0 where it tells none."""
    return int(text) if text and len(text) < _DIGITS and text.isdecimal() else 0


_FEW = 8
_LAST_PLACE = (1 << 18) - 1
_COUNTED_MAX = 50_000


class ClaimBudget:
    """How many claims of one user one process takes in a window, counted without asking anybody.

    The first few of a session are counted roughly, in one of many places that it may share with
    others: that costs a claim a fifth of a microsecond. From then on, which may be too early and
    never too late, the session is counted by itself, together with those of the same user: for
    that it is looked up once a window. A window begins with the first such claim after the last
    one's end, or where as many sessions are counted by themselves as can be kept in mind.
    """

    def __init__(
        self,
        user_of: Callable[[str], Awaitable[int | None]],
        *,
        claims_max: int,
        window_s: float,
        now_s: Callable[[], float] = monotonic,
    ) -> None:
        self._user_of = user_of
        self._claims_max = claims_max
        self._window_s = window_s
        self._now_s = now_s
        self._few = min(_FEW, claims_max // 20)
        self._begin()

    def __repr__(self) -> str:
        return f"<ClaimBudget {self._claims_max} in {self._window_s:g} s>"

    def add(self, session: str) -> bool:
        """Count a claim of the session with this key; whether `wait_s` has to count it instead."""
        place = hash(session) & _LAST_PLACE
        seen = self._seen[place]
        if seen < self._few:
            self._seen[place] = seen + 1
            return False
        if self._now_s() >= self._ends_s:
            self._begin()
            self._seen[place] = 1
            return self._few == 0
        return True

    async def wait_s(self, session: str, token: str) -> int:
        """0 where the claim may go on, else how long its user has to wait, in whole seconds."""
        count = self._counts.get(session) or await self._by_itself(session, token)
        count[0] += 1
        if count[0] <= self._claims_max:
            return 0
        return max(1, math.ceil(self._ends_s - self._now_s()))

    def _begin(self) -> None:
        self._ends_s = self._now_s() + self._window_s
        self._seen = bytearray(_LAST_PLACE + 1)
        self._counts: dict[str, list[int]] = {}
        self._of_users: dict[int, list[int]] = {}

    async def _by_itself(self, session: str, token: str) -> list[int]:
        """The count of a session that has had its few: its user's, where that can be known."""
        try:
            user_id = await self._user_of(token)
        except Unavailable:  # then its own
            user_id = None
        if len(self._counts) >= _COUNTED_MAX:
            self._begin()
        if session not in self._counts:
            count = [0] if user_id is None else self._of_users.setdefault(user_id, [0])
            count[0] += self._few
            self._counts[session] = count
        return self._counts[session]
