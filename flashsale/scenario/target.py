"""The target: where a storm goes, and the bytes of what it can ask there."""

import re
import socket
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit

from flashsale.errors import UnreachableError, UsageError

CLAIM_PATH = "/voucher-order/seckill/{voucher}"
SHOP_PATH = "/shop/{shop}"
SIGN_PATH = "/user/sign"
_BASE_URL = re.compile(r"http://[^/?#@\s]+(/[^?#\s]*)?")
_TAIL = b"\r\ncontent-length: 0\r\n\r\n"
_FORM = "http://host:port (TLS is not spoken here)"


@dataclass(frozen=True)
class Target:
    """A base URL, taken apart and resolved once, so that no claim waits for a name."""

    base_url: str
    authority: str
    prefix: str
    family: socket.AddressFamily
    address: str
    port: int

    @classmethod
    def at(cls, base_url: str) -> "Target":
        """The target at `base_url`. Raises UsageError, and UnreachableError for an unknown host."""
        parts = _parsed(base_url)
        assert parts.hostname is not None
        port = parts.port or 80
        try:
            found = socket.getaddrinfo(parts.hostname, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise UnreachableError(f"{base_url}: no such host; check --base-url") from error
        family, _, _, _, address = found[0]
        prefix = parts.path.rstrip("/")
        return cls(base_url.rstrip("/"), parts.netloc, prefix, family, str(address[0]), port)

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


def _parsed(base_url: str) -> SplitResult:
    if base_url.isascii() and _BASE_URL.fullmatch(base_url):
        with suppress(ValueError):
            parts = urlsplit(base_url)
            if parts.hostname and parts.port != 0:  # reading it raises for what is no port
                return parts
    raise UsageError(f"--base-url: found {base_url!r}, expected {_FORM}")
