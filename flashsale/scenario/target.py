"""The target: where a storm goes, the bytes of what it can ask there, and what is asked beside."""

import re
import socket
import ssl
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Annotated, Any, Self
from urllib.parse import SplitResult, urlsplit

from pydantic import AfterValidator, Field

from flashsale.asking import Way
from flashsale.errors import UnreachableError, UsageError
from flashsale.scenario.table import Table

CLAIM_PATH = "/voucher-order/seckill/{voucher}"
SHOP_PATH = "/shop/{shop}"
SIGN_PATH = "/user/sign"
_BASE_URL = re.compile(r"https?://[^/?#@\s]+(/[^?#\s]*)?")
_SOCKET_URL = re.compile(r"unix:(/[!-~]+)")
_ZONE = re.compile(r"%[^\]]*\]")  # is of this machine alone, and no part of a name
_TAIL = b"\r\ncontent-length: 0\r\n\r\n"
_FORM = "http://host:port, https://host:port or unix:/path/of/socket"
_ROUTE = re.compile(r"(/[!-\"$-~]*)?")
_ADDRESSES_MAX = 8
_LOOPBACK = ("127.0.0.1", "::1")  # what localhost is, also where no hosts file says so


def _route(path: str) -> str:
    if _ROUTE.fullmatch(path) is None:
        raise ValueError(
            f"target: found {path!r}, expected a path such as '/health', or '' for none"
        )
    return path


_Route = Annotated[str, AfterValidator(_route)]


class Routes(Table):
    """What is asked of the target by GET beside the attempts; nothing where a path is empty.

    A system that does not tell methods apart takes a GET of the claim's path for a claim. So only
    the question after a claim in doubt asks that path, and by default only where the target has the
    health route as well.
    """

    health: _Route = Field(
        default="/healthz", description="says before the storm that the target is well"
    )
    session: _Route = Field(
        default="/user/me", description="answers 401 before the storm to a token it does not know"
    )
    status: _Route = Field(
        default=CLAIM_PATH, description="says after the storm what became of a claim in doubt"
    )


@dataclass(frozen=True)
class Tls:
    """How TLS is spoken: what the server's certificate is checked against (nothing, where it is
    `insecure`), and the certificate that a client shows, with its key."""

    ca: str | None = None
    certificate: str | None = None
    key: str | None = None
    insecure: bool = False

    def context(self) -> ssl.SSLContext:
        """Made anew, since none can be handed to another process. Raises UsageError for a file
        that cannot be used."""
        try:
            context = ssl.create_default_context(cafile=self.ca)
            if self.insecure:
                context.check_hostname = False
                context.verify_mode = ssl.CERT_NONE
            if self.certificate:
                context.load_cert_chain(self.certificate, self.key)
            context.set_alpn_protocols(["http/1.1"])
        except (OSError, ValueError) as error:  # ssl's own among them
            named = ", ".join(filter(None, (self.ca, self.certificate, self.key)))
            raise UsageError(f"--ca, --cert, --key: cannot use {named} ({error})") from error
        return context


@dataclass(frozen=True)
class Target:
    """A base URL, taken apart and resolved once, so that no claim waits for a name.

    All that is asked of it goes to the first of `addresses`, which are numeric; who sees that
    another one answers takes `at_address`.
    """

    base_url: str
    authority: str
    prefix: str
    addresses: tuple[str, ...]
    port: int
    tls: Tls | None = None
    server_name: str = ""

    @classmethod
    def at(cls, base_url: str, tls: Tls | None = None) -> "Target":
        """The target at `base_url`, with `tls` where that says https. Raises UsageError, and
        UnreachableError for an unknown host."""
        if (socket_url := _SOCKET_URL.fullmatch(base_url)) is not None:
            return cls(base_url, "localhost", "", (socket_url[1],), 0)
        parts = _parsed(base_url)
        assert parts.hostname is not None
        secure = parts.scheme == "https"
        port = parts.port or (443 if secure else 80)
        host = parts.hostname.replace("%25", "%", 1)
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            addresses = tuple(dict.fromkeys(_numeric(address) for *_, address in found))
        except (OSError, UnicodeError) as error:
            if host != "localhost":
                raise UnreachableError(f"{base_url}: no such host; check --base-url") from error
            addresses = _LOOPBACK
        prefix, authority = parts.path.rstrip("/"), _ZONE.sub("]", parts.netloc)
        return cls(
            base_url.rstrip("/"),
            authority,
            prefix,
            addresses[:_ADDRESSES_MAX],
            port,
            (tls or Tls()) if secure else None,
            host.partition("%")[0],
        )

    @property
    def socket(self) -> str | None:
        """The Unix socket that it listens on, in place of a port."""
        return self.address if not self.port else None

    @property
    def way(self) -> Way | None:
        """How it is asked beside the attempts; None where that is by plain TCP."""
        if self.tls is not None:
            return Way(self.tls.context(), self.server_name)
        return Way(socket=self.socket) if self.socket else None

    @property
    def address(self) -> str:
        """Where all of it goes."""
        return self.addresses[0]

    @property
    def origin(self) -> str:
        """The base URL with the address in place of the name; who asks there names `authority` as
        the host."""
        if self.socket:
            return "http://localhost"
        host = f"[{self.address}]" if ":" in self.address else self.address
        scheme = "http" if self.tls is None else "https"
        return f"{scheme}://{host}:{self.port}{self.prefix}"

    @property
    def shown(self) -> str:
        """The base URL as it was given, with the address where that is not in it."""
        given = self.address.partition("%")[0] in self.base_url
        return self.base_url if given else f"{self.base_url} ({self.address})"

    def at_address(self, address: str) -> Self:
        """The same at this address alone."""
        return replace(self, addresses=(address,))

    def claims(self, claims: Iterable[tuple[int, str]]) -> list[bytes]:
        """The bytes of each claim, given as voucher and token."""
        heads: dict[int, bytes] = {}
        requests = []
        for voucher, token in claims:
            head = heads.get(voucher)
            if head is None:
                head = heads[voucher] = self._head(voucher)
            requests.append(head + token.encode("ascii") + _TAIL)
        return requests

    def claim(self, voucher: int, token: str) -> bytes:
        """The bytes of one claim."""
        return self._head(voucher) + token.encode("ascii") + _TAIL

    def reads(self, shops: Iterable[int]) -> list[bytes]:
        """The bytes of each read of a shop; reads of the same shop share them."""
        known: dict[int, bytes] = {}
        return [known.get(shop) or known.setdefault(shop, self._read(shop)) for shop in shops]

    def read_by(self, shop: int, token: str) -> bytes:
        """The bytes of a read by a user, who says who it is, as the family's clients do."""
        line = f"GET {self.prefix}{SHOP_PATH.format(shop=shop)} HTTP/1.1"
        return f"{line}\r\nhost: {self.authority}\r\nauthorization: {token}\r\n\r\n".encode("ascii")

    def sign_in(self, token: str) -> bytes:
        """The bytes of a user's daily sign-in."""
        return self._posting(SIGN_PATH) + token.encode("ascii") + _TAIL

    def _read(self, shop: int) -> bytes:
        path = self.prefix + SHOP_PATH.format(shop=shop)
        return f"GET {path} HTTP/1.1\r\nhost: {self.authority}\r\n\r\n".encode("ascii")

    def _head(self, voucher: int) -> bytes:
        return self._posting(CLAIM_PATH.format(voucher=voucher))

    def _posting(self, path: str) -> bytes:
        head = f"POST {self.prefix}{path} HTTP/1.1\r\nhost: {self.authority}\r\nauthorization: "
        return head.encode("ascii")


def _numeric(address: tuple[Any, ...]) -> str:
    """The address of a socket, with the scope that a link-local one is of."""
    host, _, *rest = address
    scope = rest[1] if len(rest) > 1 else 0
    return f"{host}%{scope}" if scope and "%" not in host else str(host)


def _parsed(base_url: str) -> SplitResult:
    if base_url.isascii() and _BASE_URL.fullmatch(base_url):
        with suppress(ValueError):
            parts = urlsplit(base_url)
            if parts.hostname and parts.port != 0:  # reading it raises for what is no port
                return parts
    raise UsageError(f"--base-url: found {base_url!r}, expected {_FORM}")
