"""One GET of a stranger, whose answer is bounded: in total time, in bytes, in what it unpacks to.

A server that nobody knows may send a byte a second, never end, pack gigabytes into a megabyte, or
nest JSON deeper than a parser goes. None of that may hold up or end whoever asks.
"""

import asyncio
import codecs
import ssl
import zlib
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from typing import Any

import httpx
import orjson

BYTES_MAX = 65_536
_SILENCE_S = 60.0
"""Far above any time for a whole answer, which is what `ask` bounds."""

_PORT_MAX, _REASON_MAX = 65_535, 200
_ASKED_FOR = {"accept-encoding": "identity"}
WINDOWS = {"gzip": 31, "x-gzip": 31, "deflate": zlib.MAX_WBITS}
"""How bodies come packed that are read, and what zlib calls it."""


def read_json(text: bytes) -> Any:
    """What JSON says, behind a byte-order mark, too.

    Raises ValueError for what is none, and for what nests too deep to be written again: showing
    such a thing, or comparing it, fails at a depth of its own.
    """
    document = orjson.loads(text.removeprefix(codecs.BOM_UTF8))
    try:
        orjson.dumps(document)
    except orjson.JSONEncodeError as error:
        raise ValueError("nests too deep") from error
    return document


ABSENT = object()
"""What stands where nothing does: null is something."""


def at_pointer(document: Any, pointer: str) -> Any:
    """What stands at a JSON pointer (RFC 6901); ABSENT where nothing does."""
    for part in pointer.split("/")[1:]:
        name = part.replace("~1", "/").replace("~0", "~")
        if isinstance(document, dict) and name in document:
            document = document[name]
        elif isinstance(document, list) and name.isascii() and name.isdigit():
            if int(name) >= len(document):
                return ABSENT
            document = document[int(name)]
        else:
            return ABSENT
    return document


class UnansweredError(Exception):
    """No answer that could be read came within the bounds; the message says why, in a few words."""


@dataclass(frozen=True)
class Way:
    """How a server is reached that is not asked by plain TCP: through TLS, in whose handshake
    `server_name` is asked for, or over a Unix socket, or both."""

    context: ssl.SSLContext | None = None
    server_name: str | None = None
    socket: str | None = None


@dataclass(frozen=True)
class Fetched:
    """What was answered. `body` is as it was before it was packed; empty where nobody wanted it."""

    status: int
    headers: httpx.Headers
    body: bytes = b""

    def json(self) -> Any:
        """What the body says, None where that is no JSON that can be read."""
        try:
            return read_json(self.body)
        except ValueError:
            return None

    @property
    def sent_on_to(self) -> str | None:
        """Where a redirection leads; None for an answer that is none."""
        return self.headers.get("location", "") if 300 <= self.status < 400 else None


@cache
def _trusting() -> ssl.SSLContext:
    """With the authorities that httpx trusts, read once: they take longer than most questions."""
    return httpx.create_ssl_context(trust_env=False)


_UNUSED = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""For who asks no https: it trusts nobody."""


class _Transport(httpx.AsyncHTTPTransport):
    """Goes the way it is made with; in a handshake that asks for the name, since a URL has an
    address in its place."""

    def __init__(self, way: Way, in_plain: bool) -> None:
        context = way.context or (_UNUSED if in_plain else _trusting())
        super().__init__(verify=context, trust_env=False, uds=way.socket)
        self._named = {"sni_hostname": way.server_name} if way.server_name else {}

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        request.extensions = {**request.extensions, **self._named}
        return await super().handle_async_request(request)


def client(base_url: str, way: Way | None = None) -> httpx.AsyncClient:
    """A client for `ask`, which bounds the time as a whole. Raises UnansweredError for no URL."""
    try:
        return httpx.AsyncClient(
            base_url=base_url,
            timeout=_SILENCE_S,
            trust_env=False,
            transport=_Transport(way or Way(), base_url.startswith("http://")),
        )
    except httpx.InvalidURL as error:
        raise UnansweredError(f"no URL: {error}") from error


async def ask(
    of: httpx.AsyncClient,
    url: str,
    *,
    total_s: float,
    bytes_max: int = BYTES_MAX,
    headers: dict[str, str] | None = None,
    parameters: dict[str, str] | None = None,
) -> Fetched:
    """The answer to GET `url`, redirections not followed; with `bytes_max` 0 its head alone.

    Raises UnansweredError where there is none within `total_s` and `bytes_max`, packed or not.
    """
    told = {**_ASKED_FOR, **(headers or {})}
    try:
        async with (
            asyncio.timeout(total_s),
            of.stream("GET", url, headers=told, params=parameters) as response,
        ):
            body = await _body(response, bytes_max) if bytes_max else b""
            return Fetched(response.status_code, response.headers, body)
    except TimeoutError:
        raise UnansweredError(f"no whole answer within {total_s:g} s") from None
    except (httpx.HTTPError, httpx.InvalidURL, zlib.error) as error:
        raise UnansweredError(str(error)[:_REASON_MAX] or type(error).__name__) from error


def ask_once(url: str, *, way: Way | None = None, **bounds: Any) -> Fetched:
    """The same for whoever has no loop and one question, asked on this way. Takes and raises what
    `ask` does."""
    with suppress(httpx.InvalidURL):  # which `ask` tells
        if (httpx.URL(url).port or 0) > _PORT_MAX:
            raise UnansweredError(f"no URL: there is no port above {_PORT_MAX}")

    async def asking() -> Fetched:
        async with client(url, way) as of:
            return await ask(of, url, **bounds)

    return asyncio.run(asking())


async def _body(response: httpx.Response, bytes_max: int) -> bytes:
    """Unpacked as far as the bound: a server may pack what it was asked to send as it is."""
    packed = response.headers.get("content-encoding", "identity").strip().lower()
    if packed not in ("", "identity", *WINDOWS):
        raise UnansweredError(f"an answer packed as {packed[:40]!r}, which was not asked for")
    unpack = zlib.decompressobj(WINDOWS[packed]) if packed in WINDOWS else None
    body = bytearray()
    async for piece in response.aiter_raw():
        body += unpack.decompress(piece, bytes_max + 1 - len(body)) if unpack else piece
        if len(body) > bytes_max:
            raise UnansweredError(f"an answer of more than {bytes_max:,} bytes")
    return bytes(body)
