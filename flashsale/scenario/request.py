"""What a shop is asked: one request, its texts templates, and the bytes that come of it."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from flashsale.scenario import template
from flashsale.scenario.table import Table
from flashsale.scenario.template import Piece, Values

_PATH = re.compile(r"/[!-\"$-~]*")
_HEADER_NAME = re.compile(r"[!#-'*+.0-9A-Z^_`a-z|~-]+")
_HEADER_TEXT = re.compile(r"[ -~]*")
_OURS = frozenset({"host", "content-length", "transfer-encoding", "connection", "expect"})
_TYPES = {"json": "application/json", "form": "application/x-www-form-urlencoded"}


@dataclass(frozen=True)
class Prepared:
    """A request that lacks its values alone."""

    head: tuple[Piece, ...]
    body: tuple[Piece, ...] | None

    def filled(self, values: Values) -> bytes:
        """The bytes to send."""
        head = template.fill(self.head, values)
        if self.body is None:
            return f"{head}\r\n".encode()
        body = template.fill(self.body, values).encode()
        return f"{head}content-length: {len(body)}\r\n\r\n".encode() + body

    @property
    def names(self) -> frozenset[str]:
        """The variables that it asks for."""
        return frozenset(template.names_in((*self.head, *(self.body or ()))))


class Request(Table):
    """What is asked. Texts are templates over `{voucher}`, `{user}`, `{token}`, `{attempt}`,
    `{run}`, `{uuid}`, `{quantity}`, columns of the users' file (`{user.email}`) and what answers
    gave."""

    method: Literal["GET", "POST", "PUT", "PATCH", "DELETE"] = Field(
        default="POST", description="the method"
    )
    path: str = Field(description="the path, such as '/orders/{voucher}'")
    query: dict[str, str | int | float | bool] = Field(
        default_factory=dict, description='name = "value" behind the path'
    )
    headers: dict[str, str] = Field(default_factory=dict, description='name = "value"')
    body_json: Any = Field(default=None, alias="json", description="the body, as JSON")
    form: dict[str, str | int | float | bool] | None = Field(
        default=None, description="the body, as a form"
    )
    text: str | None = Field(default=None, description="the body, as it is sent")

    @model_validator(mode="after")
    def _can_be_sent(self) -> Self:
        if not _PATH.fullmatch(self.path):
            raise ValueError(
                f"path: found {self.path!r}, expected a path such as '/orders/{{voucher}}'"
            )
        given = [
            name
            for name, body in (("json", self.body_json), ("form", self.form), ("text", self.text))
            if body is not None
        ]
        if len(given) > 1:
            raise ValueError(f"{' and '.join(given)}: a request has one body; leave one of them")
        if isinstance(self.body_json, str) and self.body_json.lstrip()[:1] in ("{", "["):
            raise ValueError(
                'json: found text, expected a table, such as json = { sku = "{voucher}" }; text '
                "that is JSON already goes into text, with a content-type among the headers"
            )
        check_headers(self.headers)
        self.variables({})  # every template is one
        return self

    def variables(self, common: Mapping[str, str]) -> dict[str, set[str]]:
        """The variables that each part asks for, `common` being headers that it has besides. Raises
        ValueError for a template that is none, in the part's name."""
        parts: dict[str, Callable[[], Iterable[Piece]]] = {
            "path": lambda: template.in_path(self.path),
            "query": lambda: template.in_form(self.query),
            "headers": lambda: self._in_headers(self.headers),
            "json": lambda: template.in_json(self.body_json),
            "form": lambda: template.in_form(self.form or {}),
            "text": lambda: template.in_text(self.text or ""),
            "target.headers": lambda: self._in_headers(common),
        }
        found = {}
        for name, pieces in parts.items():
            try:
                found[name] = set(template.names_in(pieces()))
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from None
        return found

    @staticmethod
    def _in_headers(headers: Mapping[str, str]) -> Iterator[Piece]:
        return (piece for text in headers.values() for piece in template.in_header(text))

    def prepared(self, authority: str, prefix: str, common: Mapping[str, str]) -> Prepared:
        """The request to this host. Raises ValueError for a template that is none."""
        head: list[Piece] = [f"{self.method} {prefix}", *template.in_path(self.path)]
        if self.query:
            head += ["&" if "?" in self.path else "?", *template.in_form(self.query)]
        head.append(f" HTTP/1.1\r\nhost: {authority}\r\n")
        for name, text in self._headers(common).items():
            head += [f"{name}: ", *template.in_header(text), "\r\n"]
        body = self._body()
        if body is None and self.method != "GET":
            body = []
        return Prepared(tuple(head), None if body is None else tuple(body))

    def _headers(self, common: Mapping[str, str]) -> dict[str, str]:
        kind = "json" if self.body_json is not None else "form" if self.form is not None else ""
        usual = {"content-type": _TYPES[kind]} if kind else {}
        given = {name.lower(): text for name, text in {**common, **self.headers}.items()}
        return {name: text for name, text in {**usual, **given}.items() if text}

    def _body(self) -> list[Piece] | None:
        if self.body_json is not None:
            return template.in_json(self.body_json)
        if self.form is not None:
            return template.in_form(self.form)
        return None if self.text is None else template.in_text(self.text)


def check_headers(headers: Mapping[str, str]) -> None:
    """Raises ValueError for a header that cannot be sent, or is not the file's to give."""
    for name, text in headers.items():
        if not _HEADER_NAME.fullmatch(name) or name.lower() in _OURS:
            raise ValueError(
                f"headers: found {name!r}, expected a header's name that is yours to give"
            )
        if not _HEADER_TEXT.fullmatch(text):
            raise ValueError(f"headers.{name}: expected visible ASCII and spaces")
