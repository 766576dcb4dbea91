"""Who may call a route: anybody, a signed-in user, or an operator."""

from hmac import compare_digest

from flashsale.accounts import holder
from flashsale.accounts.sessions import Sessions
from flashsale.errors import Unavailable, UsageError
from flashsale.server.answers import UNAUTHORIZED, Response
from flashsale.server.request import Request
from flashsale.server.router import Handler
from flashsale.settings import OperatorSettings

TOKEN_LENGTH_MIN = 16


class Callers:
    """Wraps handlers so that they run for those who may call them, and know who it is.

    An operator sends the operator token where users send theirs, in `authorization`. Without
    one set, nobody is an operator. Raises UsageError for a token that could be guessed.
    """

    def __init__(self, sessions: Sessions, operator: OperatorSettings) -> None:
        self._sessions = sessions
        self._operator_token = operator.token.get_secret_value().encode()
        if 0 < len(self._operator_token) < TOKEN_LENGTH_MIN:
            raise UsageError(
                f"FLASHSALE_OPERATOR_TOKEN: expected {TOKEN_LENGTH_MIN} characters or more"
            )

    def __repr__(self) -> str:
        return f"<Callers operator={'set' if self._operator_token else 'nobody'}>"

    def signed_in(self, handler: Handler) -> Handler:
        """401 without a session; else `handler`, with the user in `accounts.holder`."""

        async def guarded(request: Request, segment: str) -> Response:
            user_id = await self._sessions.user_of(request.token)
            if user_id is None:
                return UNAUTHORIZED
            holder.hold(user_id)
            return await handler(request, segment)

        return guarded

    def anybody(self, handler: Handler) -> Handler:
        """`handler`, with the user in `accounts.holder` where there is one that can be known.

        A read that everybody may do does not fail because sessions cannot be read.
        """

        async def greeted(request: Request, segment: str) -> Response:
            if request.token:
                try:
                    user_id = await self._sessions.user_of(request.token)
                except Unavailable:
                    user_id = None
                if user_id is not None:
                    holder.hold(user_id)
            return await handler(request, segment)

        return greeted

    def operator(self, handler: Handler) -> Handler:
        """401 without the operator token, compared in constant time; else `handler`."""

        async def guarded(request: Request, segment: str) -> Response:
            token = request.token.encode()
            if not (self._operator_token and compare_digest(token, self._operator_token)):
                return UNAUTHORIZED
            return await handler(request, segment)

        return guarded
