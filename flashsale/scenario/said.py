"""One answer of a shop, taken apart as far as somebody asks, and the places in it where a value is.

A place is a JSON pointer (RFC 6901), `header:NAME`, `cookie:NAME` or `body:PATTERN`. Behind a name
can stand a pattern, too, as in `header:location:/orders/([0-9]+)`: the value is the first group of
the expression where it has one, else all that it matched.
"""

import re
import warnings
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from typing import Any, NamedTuple

from flashsale.asking import ABSENT, at_pointer
from flashsale.scenario.answer import document_of, plain_text
from flashsale.scenario.table import shown

SET_COOKIE = b"set-cookie"
_POINTER = re.compile(r"(/[^/]*)*")
_DOTTED = re.compile(r"(?:\$\.)?([\w-]+(?:\.[\w-]+|\[[0-9]+\])*)")
_NAME = re.compile(r"[!#-'*+.0-9A-Z^_`a-z|~-]+")
_BODY_CHARS_MAX = 1_048_576
_HEADER, _COOKIE, _BODY = "header", "cookie", "body"
_FORMS = (
    "'/data/id', 'header:location', 'header:location:/orders/(.+)', 'cookie:sid', 'body:id=(.+)'"
)


class Place(NamedTuple):
    """Where a value is: what is looked at, its name or pointer, and the pattern in that."""

    kind: str
    name: str
    pattern: "re.Pattern[str] | None" = None


@cache
def place_of(text: str) -> Place:
    """The place that is written so. Raises ValueError for one that is none."""
    kind, colon, rest = text.partition(":")
    if not colon or kind not in (_HEADER, _COOKIE, _BODY):
        if not _POINTER.fullmatch(text):
            raise ValueError(f"found {_meant(text)}, expected a JSON pointer, or one of {_FORMS}")
        return Place("", text)
    name, _, pattern = ("", "", rest) if kind == _BODY else rest.partition(":")
    name = name.strip().lower() if kind == _HEADER else name.strip()
    if kind == _BODY and not pattern:
        raise ValueError(f"found {shown(text)}, expected a pattern, such as 'body:id=([0-9]+)'")
    if kind != _BODY and not _NAME.fullmatch(name):
        raise ValueError(f"found {shown(text)}, expected such as 'header:location'")
    return Place(kind, name, expression(pattern) if pattern else None)


def check_place(text: str, where: str) -> None:
    """See that `text` says where a value is, or nothing. Raises ValueError with one line."""
    try:
        place_of(text)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None


def ensure_pointer(pointer: str, where: str) -> None:
    """Raises ValueError where `pointer` is no JSON pointer."""
    if not _POINTER.fullmatch(pointer):
        raise ValueError(f"{where}: found {_meant(pointer)}, expected a JSON pointer such as '/id'")


def _meant(text: str) -> str:
    """What was written in place of a pointer, and the pointer where that is plain."""
    path = _DOTTED.fullmatch(text)
    meant = re.sub(r"[.\[]", "/", path[1]).replace("]", "") if path else ""
    return f"{shown(text)}, did you mean '/{meant}'?" if meant else shown(text)


def expression(text: str) -> "re.Pattern[str]":
    """The regular expression that is written so. Raises ValueError for one that is none."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", FutureWarning)  # of what will mean something else
            return re.compile(text)
    except (re.error, RecursionError, OverflowError, FutureWarning) as error:
        raise ValueError(f"{text[:80]!r} is no regular expression ({error})") from None


def headers_at(places: Iterable[str]) -> set[bytes]:
    """The headers that these places look at, in lower case."""
    found = [place_of(text) for text in places]
    named = {place.name.encode("ascii") for place in found if place.kind == _HEADER}
    return named | ({SET_COOKIE} if any(place.kind == _COOKIE for place in found) else set())


def finder(pointer: str) -> Callable[[Any], Any]:
    """What finds in a document what stands at a JSON pointer, as `at_pointer` does: the way through
    objects is taken apart once, since most of it is that."""
    names = [part.replace("~1", "/").replace("~0", "~") for part in pointer.split("/")[1:]]
    if len(names) == 1:
        (only,) = names
        return lambda document: (
            document.get(only, ABSENT) if type(document) is dict else at_pointer(document, pointer)
        )

    def find(document: Any) -> Any:
        found = document
        for name in names:
            if type(found) is not dict:
                return at_pointer(document, pointer)
            found = found.get(name, ABSENT)
        return found

    return find


class Said:
    """One answer, taken apart as far as somebody asks."""

    __slots__ = ("_document", "_text", "body", "headers", "status")

    def __init__(self, status: int, headers: Mapping[bytes, bytes], body: bytes) -> None:
        self.status, self.headers, self.body = status, headers, body
        self._document: Any = _UNREAD
        self._text: str | None = None

    @property
    def document(self) -> Any:
        """The body as JSON; `ABSENT` where it is none."""
        if self._document is _UNREAD:
            try:
                self._document = document_of(self.body)
            except ValueError:
                self._document = ABSENT
        return self._document

    @property
    def text(self) -> str:
        """The body as text."""
        if self._text is None:
            self._text = self.body[:_BODY_CHARS_MAX].decode("utf-8", "replace")
        return self._text

    def cookie(self, name: str) -> str | None:
        """The value that a cookie is set to; of several the last, as browsers keep it."""
        found = None
        for line in self.headers.get(SET_COOKIE, b"").decode("latin-1").splitlines():
            named, _, value = line.partition(";")[0].partition("=")
            if named.strip() == name:
                found = value.strip()
        return found


_UNREAD = object()
Value = Callable[[Said], str | None]


@cache
def value_at(text: str) -> Value:
    """What reads the text or number at a place; None where there is none."""
    place = place_of(text)
    read, pattern = _whole(place), place.pattern
    if pattern is None:
        return read
    group = 1 if pattern.groups else 0

    def part(said: Said) -> str | None:
        found = read(said)
        match = pattern.search(found) if found is not None else None
        return None if match is None else match[group]

    return part


def _whole(place: Place) -> Value:
    if place.kind == _HEADER:
        name = place.name.encode("ascii")

        def header(said: Said) -> str | None:
            found = said.headers.get(name)
            return None if found is None else found.decode("latin-1").strip()

        return header
    if place.kind == _COOKIE:
        return lambda said: said.cookie(place.name)
    if place.kind == _BODY:
        return lambda said: said.text
    find = finder(place.name)
    return lambda said: plain_text(find(said.document))
