"""The target: where claims go, the bytes of one, and whether anybody answers there at all."""

import socket
from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit

from flashsale.errors import UnreachableError, UsageError

_PREFLIGHT_TIMEOUT_S = 5.0
CLAIM_PATH = "/voucher-order/seckill/{voucher}"


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

    def claim(self, voucher: int, token: str) -> bytes:
        """The bytes of one claim."""
        return (
            f"POST {self.prefix}{CLAIM_PATH.format(voucher=voucher)} HTTP/1.1\r\n"
            f"host: {self.authority}\r\n"
            f"authorization: {token}\r\n"
            "content-length: 0\r\n\r\n"
        ).encode("ascii")

    def preflight(self, voucher: int, token: str) -> None:
        """See that the target answers and knows the tokens, before anything is planned on it.

        Raises UnreachableError where nothing useful answers, UsageError for a refused token.
        """
        import httpx

        with httpx.Client(timeout=_PREFLIGHT_TIMEOUT_S, trust_env=False) as client:
            try:
                health = client.get(f"{self.base_url}/healthz")
                own = client.get(
                    self.base_url + CLAIM_PATH.format(voucher=voucher),
                    headers={"authorization": token},
                )
            except httpx.HTTPError as error:
                reason = str(error) or type(error).__name__
                raise UnreachableError(
                    f"nothing answers at {self.base_url} ({reason}); "
                    "start a stack with `flashsale serve --detach`, or check --base-url"
                ) from error
        if health.status_code >= 500:
            raise UnreachableError(
                f"{self.base_url}/healthz answers {health.status_code}; "
                "wait until `flashsale status` calls the stack ready"
            )
        if own.status_code == 401:
            raise UsageError(
                f"{self.base_url} does not know the tokens; run `flashsale seed` again, "
                "or give the right --tokens"
            )


def _parsed(base_url: str) -> SplitResult:
    try:
        parts = urlsplit(base_url)
        parts.port  # noqa: B018 - raises for a port that is no number
    except ValueError as error:
        raise UsageError(f"--base-url: found {base_url!r}, expected {_FORM}") from error
    if parts.scheme != "http" or not parts.hostname or parts.query or not base_url.isascii():
        raise UsageError(f"--base-url: found {base_url!r}, expected {_FORM}")
    return parts


_FORM = "http://host:port (TLS is not spoken here)"
