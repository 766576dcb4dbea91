"""Asking an ASGI application directly: one request, one answer, no socket."""

import json
from collections.abc import Iterable, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any

Pairs = Iterable[tuple[str, str]]


@dataclass(frozen=True)
class Reply:
    """What came back."""

    status: int
    pairs: tuple[tuple[str, str], ...]
    body: bytes

    @property
    def headers(self) -> dict[str, str]:
        """By name; a header that came twice is a failure."""
        assert len(dict(self.pairs)) == len(self.pairs)
        return dict(self.pairs)

    @property
    def json(self) -> Any:
        return json.loads(self.body)


async def ask(
    app: Any,
    method: str,
    path: str,
    headers: Mapping[str, str] | Pairs = (),
    *,
    body: bytes | Iterable[bytes] = b"",
    query: str = "",
    hangs_up: bool = False,
) -> Reply:
    """Send one request. A body in parts is one of unknown length; `hangs_up` cuts it short."""
    pairs = headers.items() if isinstance(headers, Mapping) else headers
    parts = [body] if isinstance(body, bytes) else list(body)
    messages: list[MutableMapping[str, Any]] = [
        {"type": "http.request", "body": part, "more_body": True} for part in parts
    ]
    if hangs_up:
        messages.append({"type": "http.disconnect"})
    else:
        messages[-1]["more_body"] = False
    sent: list[MutableMapping[str, Any]] = []

    async def receive() -> MutableMapping[str, Any]:
        return messages.pop(0)

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "query_string": query.encode(),
        "headers": [(k.lower().encode(), v.encode("latin-1")) for k, v in pairs],
    }
    await app(scope, receive, send)
    start, end = sent
    assert (start["type"], end["type"]) == ("http.response.start", "http.response.body")
    answer = tuple((k.decode(), v.decode("latin-1")) for k, v in start["headers"])
    length = dict(answer).get("content-length")
    assert method == "HEAD" or length == str(len(end["body"])), (
        "the length that was announced is the one that came"
    )
    return Reply(start["status"], answer, end["body"])
