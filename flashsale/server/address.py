"""Whose request it is, by network address: the peer's, or what a proxy of ours says of it."""

from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from flashsale.errors import UsageError
from flashsale.server.request import Scope

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

_LOOPBACK = (ip_network("127.0.0.0/8"), ip_network("::1/128"))
_UNKNOWN = "unknown"


class ClientAddresses:
    """Tells the address behind a request. Headers count only from loopback or a trusted proxy.

    `X-Real-IP` first: our nginx sets it, over whatever the client sent. Where there is none, the
    last entry of `X-Forwarded-For` that is not a trusted proxy: those before it are hearsay.
    """

    def __init__(self, trusted: Sequence[Network] = ()) -> None:
        self._trusted = (*_LOOPBACK, *trusted)

    def __repr__(self) -> str:
        return f"<ClientAddresses trusted={[str(network) for network in self._trusted]}>"

    def of(self, scope: Scope) -> str:
        """The client's address as text; "unknown" where the peer has none."""
        client = scope.get("client")
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
