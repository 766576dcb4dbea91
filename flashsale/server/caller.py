"""Who calls: anybody, a signed-in user or an operator; and from which network address."""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from hmac import compare_digest
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from flashsale.accounts.sessions import Sessions
from flashsale.errors import Unavailable, UsageError
from flashsale.server.openapi import Caller, Guarded, Handler
from flashsale.server.request import Request, Scope
from flashsale.server.response import UNAUTHORIZED, Response, personal
from flashsale.settings import OperatorSettings

UserHandler = Callable[[Request, str, int], Awaitable[Response]]
"""Takes the id of the user who calls after the request and the segment of its path."""

ReaderHandler = Callable[[Request, str, int | None], Awaitable[Response]]
"""The same, where nobody need have signed in."""

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

_LOOPBACK = (ip_network("127.0.0.0/8"), ip_network("::1/128"))
_UNKNOWN = "unknown"

TOKEN_LENGTH_MIN = 16


class Callers:
    """Wraps handlers so that they run for those who may call them, and are given who it is.

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

    def signed_in(self, handler: UserHandler) -> Guarded:
        """401 without a session; else `handler`, given the user."""

        async def guarded(request: Request, segment: str) -> Response:
            user_id = await self._sessions.user_of(request.token)
            if user_id is None:
                return UNAUTHORIZED
            return personal(await handler(request, segment, user_id))

        return Guarded(Caller.USER, handler.__doc__, guarded)

    def anybody(self, handler: ReaderHandler) -> Guarded:
        """`handler`, given the user where there is one that can be known.

        A read that everybody may do does not fail because sessions cannot be read.
        """

        async def greeted(request: Request, segment: str) -> Response:
            user_id = None
            if request.token:
                with suppress(Unavailable):
                    user_id = await self._sessions.user_of(request.token)
            answer = await handler(request, segment, user_id)
            return answer if user_id is None else personal(answer)

        return Guarded(Caller.READER, handler.__doc__, greeted)

    def operator(self, handler: Handler) -> Guarded:
        """401 without the operator token, compared in constant time; else `handler`."""

        async def guarded(request: Request, segment: str) -> Response:
            token = request.token.encode()
            if not (self._operator_token and compare_digest(token, self._operator_token)):
                return UNAUTHORIZED
            return await handler(request, segment)

        return Guarded(Caller.OPERATOR, handler.__doc__, guarded)


class ClientAddresses:
    """Tells the address behind a request. Headers count only from loopback or a trusted proxy, and
    where a Unix socket of ours is open to nobody else, from whoever has no address.

    `X-Real-IP` first: our nginx sets it, over whatever the client sent. Where there is none, the
    last entry of `X-Forwarded-For` that is not a trusted proxy: those before it are hearsay.
    """

    def __init__(self, trusted: Sequence[Network] = (), *, trusts_socket: bool = False) -> None:
        self._trusted = (*_LOOPBACK, *trusted)
        self._trusts_socket = trusts_socket

    def __repr__(self) -> str:
        return f"<ClientAddresses trusted={[str(network) for network in self._trusted]}>"

    def of(self, scope: Scope) -> str:
        """The client's address as text; "unknown" where the peer has none."""
        client = scope.get("client")
        if client is None and self._trusts_socket:
            return str(self._named(scope["headers"]) or _UNKNOWN)
        peer = _parsed(client[0]) if client else None
        if peer is None:
            return _UNKNOWN
        if not self._is_trusted(peer):
            return str(peer)
        return str(self._named(scope["headers"]) or peer)

    def _named(self, headers: Iterable[tuple[bytes, bytes]]) -> Address | None:
        forwarded: list[str] = []
        for name, value in headers:
            if name == b"x-real-ip":
                return _parsed(value.decode("latin-1"))
            if name == b"x-forwarded-for":
                forwarded += value.decode("latin-1").split(",")
        for text in reversed(forwarded):
            address = _parsed(text)
            if address is None or not self._is_trusted(address):
                return address
        return None

    def _is_trusted(self, address: Address) -> bool:
        return any(address in network for network in self._trusted)


def parse_networks(text: str) -> list[Network]:
    """The networks in a list by comma. Raises UsageError, naming the setting."""
    try:
        return [ip_network(part.strip()) for part in text.split(",") if part.strip()]
    except ValueError as error:
        raise UsageError(
            "FLASHSALE_REPLICA_TRUSTED_PROXIES: expected networks such as 10.0.0.0/8, by comma; "
            f"{error}"
        ) from error


def _parsed(text: str) -> Address | None:
    try:
        address = ip_address(text.strip())
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and address.ipv4_mapped:
        return address.ipv4_mapped
    return address
