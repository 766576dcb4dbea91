"""Answers that came through the cache: JSON as it was stored, and how it came in `x-cache`."""

from flashsale.cache.entry import Source
from flashsale.catalog.page import Page
from flashsale.server.answers import NOT_FOUND, Header, Response, ok_json

_HEADERS: dict[Source, Header] = {source: (b"x-cache", source.encode()) for source in Source}


def answered(body: bytes | None, source: Source, absent: Response = NOT_FOUND) -> Response:
    """The thing in `body`, or `absent` where there is none."""
    header = _HEADERS[source]
    if body is None:
        return Response(absent.status, absent.body, [*absent.headers, header])
    return ok_json(body, header)


def listed(page: Page) -> Response:
    """A page of a list."""
    return ok_json(page.body, _HEADERS[page.source])
