"""What a route says of itself where it is declared, and the OpenAPI document made of all of them.

    router.add("POST", "/shop", operator(self.create)).takes(NewShop).gives(ID, NO_TYPE)

One declaration routes and describes. What follows from it is not said again: a `{name}` in the path
is an id and may be a bad one, a guard may answer 401, a body may be no JSON, and whatever this
server, the application or nginx before it refuses is the same for every route. A summary is the
first line of the handler's docstring.
"""

from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from enum import Enum, auto
from importlib.metadata import version
from typing import Any, NamedTuple, Self

import orjson
from pydantic import BaseModel

from flashsale.cache.entry import Source
from flashsale.catalog.json import Shape, closed
from flashsale.model import ID_MAX
from flashsale.server.http.heads import (
    BODY_TOO_LARGE,
    HEAD_TOO_LARGE,
    MALFORMED,
    TARGET_TOO_LONG,
    TOO_MANY_CONNECTIONS,
    TOO_SLOW,
    UNEXPECTED,
)
from flashsale.server.request import Parameter, Request
from flashsale.server.response import (
    BAD_ID,
    BUSY,
    NOT_FOUND,
    UNAUTHORIZED,
    Response,
    rejected,
    respond,
    too_many,
)

Handler = Callable[[Request, str], Awaitable[Response]]
ID: Shape = {"type": "integer", "format": "int64", "minimum": 1, "maximum": ID_MAX}
COUNT: Shape = {"type": "integer", "minimum": 0}

_EVERYWHERE = (
    *(MALFORMED, TOO_SLOW, BODY_TOO_LARGE, TARGET_TOO_LONG, UNEXPECTED, HEAD_TOO_LARGE),
    *(too_many(1), BUSY, TOO_MANY_CONNECTIONS),
)
"""What any route may answer, through the server before it, or nginx before that."""
_OF_PATHS = (BAD_ID, NOT_FOUND)
_OF_BODIES = (rejected("Malformed field", 400), rejected("Expected application/json", 415))
_IMPLIED = (*_EVERYWHERE, *_OF_PATHS, *_OF_BODIES, UNAUTHORIZED)
_MEANINGS = {
    200: "Done, or a rejection for good",
    400: "Malformed",
    401: "Not signed in",
    404: "Not there",
    408: "Too slow",
    413: "Body too large",
    414: "Target too long",
    415: "Another type of body is expected",
    417: "Expectation failed",
    429: "Too many requests, try again later",
    431: "Head too large",
    503: "Busy, or not known: try again",
}
_NEVER_TOLD = frozenset({b"content-type", b"content-length"})


class Caller(Enum):
    """Who may call."""

    ANYBODY = auto()
    READER = auto()  # anybody, and a user is told more
    USER = auto()
    OPERATOR = auto()


_SECURITY: dict[Caller, list[dict[str, list[str]]]] = {
    Caller.ANYBODY: [],
    Caller.READER: [{}, {"session": []}],
    Caller.USER: [{"session": []}],
    Caller.OPERATOR: [{"operator": []}],
}
_SCHEMES = {
    name: {"type": "apiKey", "in": "header", "name": "authorization", "description": meaning}
    for name, meaning in {
        "session": "The token that POST /user/login gave.",
        "operator": "FLASHSALE_OPERATOR_TOKEN.",
    }.items()
}


class Guarded(NamedTuple):
    """A handler that runs for some callers alone."""

    caller: Caller
    meaning: str | None
    handler: Handler

    def __call__(self, request: Request, segment: str) -> Awaitable[Response]:
        """Ask the handler."""
        return self.handler(request, segment)


class Route:
    """One method on one pattern. Its methods say more of it, and give it back."""

    def __init__(self, method: str, pattern: str, handler: Handler | Guarded) -> None:
        if not isinstance(handler, Guarded):
            handler = Guarded(Caller.ANYBODY, handler.__doc__, handler)
        self.method = method
        self.pattern = pattern
        self.handler: Handler = handler.handler
        self.caller = handler.caller
        self.summary = _first_line(handler.meaning)
        self.parameters: Sequence[Parameter] = ()
        self.form: type[BaseModel] | None = None
        self.is_described = False
        self.file = ""
        self.data: Shape | None = None
        self.is_data_sure = True
        self.answers: Sequence[Response] = ()
        self.is_cached = False
        self.content_type = ""

    def __repr__(self) -> str:
        return f"<Route {self.name}>"

    @property
    def name(self) -> str:
        """`GET /healthz`."""
        return f"{self.method} {self.pattern}"

    def by(self, caller: Caller) -> Self:
        """Who may call, where the handler sees to that itself."""
        self.caller = caller
        return self

    def asks(self, *parameters: Parameter) -> Self:
        """What it reads from the query and the headers."""
        self.parameters = parameters
        return self

    def takes(self, form: type[BaseModel]) -> Self:
        """The JSON object that it reads."""
        self.form = form
        return self

    def takes_file(self, field: str) -> Self:
        """The field of a multipart form that it reads."""
        self.file = field
        return self

    def gives(self, data: Shape | None = None, *answers: Response) -> Self:
        """The `data` of a success, and each other answer that it has."""
        self.data, self.answers, self.is_described = data, answers, True
        return self

    def gives_perhaps(self, data: Shape, *answers: Response) -> Self:
        """The same, where a success may have no `data`."""
        self.is_data_sure = False
        return self.gives(data, *answers)

    def cached(self) -> Self:
        """It says by `x-cache` how its data came."""
        self.is_cached = True
        return self

    def sends(self, content_type: str) -> Self:
        """A body of that type, not the envelope."""
        self.content_type, self.is_described = content_type, True
        return self

    @property
    def every_answer(self) -> Iterator[Response]:
        """All that are told apart."""
        yield from _EVERYWHERE
        yield from self.answers
        if "{" in self.pattern:
            yield from _OF_PATHS
        if self.form is not None:
            yield from _OF_BODIES
        if self.caller in (Caller.USER, Caller.OPERATOR):
            yield UNAUTHORIZED


class Document:
    """All routes as OpenAPI 3.1 has them: an answer, made once, when every route is there."""

    def __init__(self) -> None:
        self._answer = BUSY

    def __repr__(self) -> str:
        return f"<Document {len(self._answer.body)} bytes>"

    def make(self, routes: Iterable[Route]) -> None:
        """Describe them."""
        body = orjson.dumps(described(routes))
        self._answer = respond(200, body, (b"content-type", b"application/json"))

    async def send(self, request: Request, segment: str) -> Response:
        """Every route, described."""
        return self._answer


def described(routes: Iterable[Route]) -> dict[str, Any]:
    """The document."""
    paths: defaultdict[str, dict[str, Any]] = defaultdict(dict)
    for route in routes:
        operation = paths[route.pattern][route.method.lower()] = _operation(route)
        if route.method == "GET":
            paths[route.pattern]["head"] = _without_bodies(operation)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "flashsale",
            "version": version("flashsale"),
            "description": "One replica of a flash sale.",
        },
        "paths": paths,
        "components": {"securitySchemes": _SCHEMES, "responses": _SHARED},
    }


def _operation(route: Route) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": f"{route.method.lower()}{route.pattern.translate(_AS_WORDS)}",
        "summary": route.summary,
        "tags": [route.pattern.split("/")[1]],
        "responses": dict(_responses(route)),
        "security": _SECURITY[route.caller],
    }
    parameters = [_of_path(part[1:-1]) for part in route.pattern.split("/") if part[:1] == "{"]
    parameters += [told for parameter in route.parameters for told in parameter.described()]
    if parameters:
        operation["parameters"] = parameters
    if route.form is not None:
        content = {"application/json": {"schema": _form(route.form)}}
        operation["requestBody"] = {"required": True, "content": content}
    if route.file:
        file = {"type": "string", "contentMediaType": "application/octet-stream"}
        form = {"type": "object", "properties": {route.file: file}, "required": [route.file]}
        content = {"multipart/form-data": {"schema": form}}
        operation["requestBody"] = {"required": True, "content": content}
    return operation


_AS_WORDS = str.maketrans({"/": "_", "{": None, "}": None, "-": "_", ".": "_"})


def _of_path(name: str) -> dict[str, Any]:
    return {"name": name, "in": "path", "required": True, "schema": ID}


def _responses(route: Route) -> Iterator[tuple[str, dict[str, Any]]]:
    answers: defaultdict[int, list[Response]] = defaultdict(list)
    answers[200] = []
    for answer in route.every_answer:
        answers[answer.status].append(answer)
    for status, told in sorted(answers.items()):
        response = _response(status, told, None if status == 200 else _REFUSED)
        if status == 200:
            kind = route.content_type or "application/json"
            shape = _sent_as(kind) if route.content_type else _envelope(route, told)
            response["content"] = {kind: {"schema": shape}}
        elif status == 404:
            response["content"] = {"application/json": {"schema": _rejection(told)}}
        elif response == _SHARED[str(status)]:
            response = {"$ref": f"#/components/responses/{status}"}
        if status == 200 and route.is_cached:
            cache = _header([source.value for source in Source], is_always=True)
            response.setdefault("headers", {})["x-cache"] = cache
        yield str(status), response


def _response(status: int, answers: Sequence[Response], body: Shape | None) -> dict[str, Any]:
    response: dict[str, Any] = {"description": _MEANINGS[status]}
    if body is not None and any(answer.body for answer in answers):
        response["content"] = {"application/json": {"schema": body}}
    headers = dict(_headers(answers))
    return {**response, "headers": headers} if headers else response


def _envelope(route: Route, answers: Sequence[Response]) -> Shape:
    """A success with its data, or one of the rejections among `answers`."""
    data = {} if route.data is None else {"data": route.data}
    success = closed({"success": {"const": True}, **data}, *([] if route.is_data_sure else data))
    rejection = _rejection(answers)
    return {"oneOf": [success, rejection]} if rejection else success


def _rejection(answers: Iterable[Response]) -> Shape:
    bodies = [orjson.loads(answer.body) for answer in answers]
    told = dict.fromkeys(body["errorMsg"] for body in bodies if not body["success"])
    return closed({"success": {"const": False}, "errorMsg": {"enum": [*told]}}) if told else {}


def _sent_as(content_type: str) -> Shape:
    return {"type": "string"} if content_type.startswith("text/") else {"type": "object"}


def _headers(answers: Sequence[Response]) -> Iterator[tuple[str, dict[str, Any]]]:
    values: defaultdict[bytes, list[str]] = defaultdict(list)
    for answer in answers:
        for name, value in answer.headers:
            if name not in _NEVER_TOLD:
                values[name].append(value.decode())
    for name, found in values.items():
        is_always = len(found) == len(answers)
        yield name.decode(), _header(list(dict.fromkeys(found)), is_always=is_always)


def _header(values: list[str], *, is_always: bool) -> dict[str, Any]:
    is_number = all(map(str.isdigit, values))
    shape = {"type": "integer", "minimum": 1} if is_number else {"enum": values}
    return {"required": is_always, "schema": shape}


_REFUSED = closed({"success": {"const": False}, "errorMsg": {"type": "string"}})
_SHARED = {
    str(status): _response(status, [one for one in _IMPLIED if one.status == status], _REFUSED)
    for status in sorted({one.status for one in _IMPLIED} - {404})
}
"""The responses of most routes, by status."""


def _without_bodies(operation: dict[str, Any]) -> dict[str, Any]:
    """The same, asked by HEAD."""
    responses = {}
    for status, response in operation["responses"].items():
        whole = _SHARED[status] if "$ref" in response else response
        responses[status] = {name: part for name, part in whole.items() if name != "content"}
    name = operation["operationId"].replace("get", "head", 1)
    return {**operation, "operationId": name, "responses": responses}


def _form(form: type[BaseModel]) -> Shape:
    """What is accepted as `form`: null is absent, and fields that it does not know are ignored."""
    schema = form.model_json_schema()
    needed = schema["required"]
    properties = {
        name: field if name in needed or "anyOf" in field else {"anyOf": [field, {"type": "null"}]}
        for name, field in schema["properties"].items()
    }
    return {**schema, "properties": properties}


def listing(shape: Shape, items_max: int | None = None) -> Shape:
    """The shape of an array."""
    bound = {} if items_max is None else {"maxItems": items_max}
    return {"type": "array", "items": shape, **bound}


def _first_line(text: str | None) -> str:
    return (text or "").strip().partition("\n")[0]
