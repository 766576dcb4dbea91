"""Sessions: who is behind a token. Look-ups leave together, as claims do."""

from collections.abc import Sequence

from flashsale import keys
from flashsale.errors import Indeterminate, Unavailable
from flashsale.lua.scripts import Call, script
from flashsale.model import parse_id
from flashsale.settings import SessionSettings
from flashsale.storage.channel import Channel
from flashsale.storage.gate import Bounds, Gate, GateFull

TOKEN_LENGTH_MAX = 128
_READ = script("session_read")


class Sessions:
    """The session look-ups of one replica."""

    def __init__(self, ledger_url: str, settings: SessionSettings) -> None:
        self._sliding_ms = settings.sliding_ms
        self.channel = Channel(
            ledger_url,
            connections_max=settings.calls_max,
            timeout_s=settings.timeout_ms / 1000,
        )
        self.gate: Gate[str, int | None] = Gate(
            self._read, Bounds(settings.batch_max, settings.calls_max, settings.queue_max)
        )

    def __repr__(self) -> str:
        return f"<Sessions {self.gate!r}>"

    @staticmethod
    def key_of(token: str) -> str | None:
        """The key of the session that `token` may open, None where it can open none."""
        return keys.login_token(token) if 0 < len(token) <= TOKEN_LENGTH_MAX else None

    async def user_of(self, token: str) -> int | None:
        """The id of the user behind `token`, None where there is no valid session.

        Raises Unavailable when that cannot be known, since "no session" would be a lie.
        """
        session = self.key_of(token)
        if session is None:
            return None
        try:
            return await self.gate.enter(session)
        except (GateFull, Indeterminate) as error:
            raise Unavailable("sessions cannot be read") from error

    async def aclose(self) -> None:
        """Close the connections."""
        await self.channel.aclose()

    async def _read(self, session_keys: list[str]) -> Sequence[int | None]:
        reply = await self.channel.evaluate(Call(_READ, session_keys, self._sliding_ms))
        return [parse_id(user_id) for user_id in reply]
