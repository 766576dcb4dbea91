"""Documents that are almost right: valid ones with a place or two that hold something else."""

import copy
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, date, datetime
from types import NoneType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from hypothesis import strategies as st
from pydantic import BaseModel

Path = tuple[str | int, ...]

TEXTS = (
    *(
        "",
        " ",
        "0",
        "-1",
        "1e999",
        "nan",
        "١",
        "x" * 3_000,
        "\x00",
        "\x1b[2J",
        "\u202e",
        "../..",
        "/",
    ),
    *("{", "{}", "{user.}", "{user.a b}", "(", "(a+)+$", "[[:x:]]", "10s", "0s", "9" * 30 + "s"),
    *(
        "< 1",
        "<",
        ">= 1e9s",
        "== nan",
        "/a/b",
        "header:x",
        "cookie:",
        "4xx",
        "9xx",
        "http://",
        "🛒",
    ),
)
NUMBERS = (0, -1, 1, 2**31, 2**63 - 1, 2**63, -(2**63), 10**30, 0.0, -0.0, 1e308, 1e-308)
ODD = st.one_of(
    st.sampled_from(TEXTS),
    st.sampled_from(NUMBERS),
    st.sampled_from([True, False, float("inf"), float("-inf"), float("nan")]),
    st.sampled_from([[], {}, [[]], {"": {}}, {"a.b": 1}, [1, "a"], [{}], {"json": {"json": 1}}]),
    st.text(max_size=20),
    st.integers(-(2**65), 2**65),
)
"""Values of every kind, with what has broken programs before."""
MOMENTS = st.sampled_from([datetime(2026, 1, 1, tzinfo=UTC), date(9999, 12, 31)])
"""What TOML knows beside them."""


def places(document: object, at: Path = ()) -> Iterator[Path]:
    """Every place in a document but its whole."""
    if isinstance(document, Mapping):
        inner: Iterator[tuple[str | int, Any]] = iter(document.items())
    elif isinstance(document, list):
        inner = iter(enumerate(document))
    else:
        return
    for key, value in inner:
        yield (*at, key)
        yield from places(value, (*at, key))


@st.composite
def disturbed(
    draw: st.DrawFn, documents: Sequence[Any], values: st.SearchStrategy[Any] = ODD
) -> Any:
    """One of the documents with up to three places changed: another value, another's value, no
    value, another name, one more."""
    document = copy.deepcopy(draw(st.sampled_from(documents)))
    for _ in range(draw(st.integers(1, 3))):
        found = list(places(document))
        if not found:
            break
        *way, last = draw(st.sampled_from(found))
        holder = document
        for step in way:
            holder = holder[step]
        match draw(st.sampled_from(["replace", "borrow", "drop", "add"])):
            case "replace":
                holder[last] = copy.deepcopy(draw(values))
            case "borrow":
                other: Any = document
                for step in draw(st.sampled_from(found)):
                    other = other[step]
                holder[last] = copy.deepcopy(other)
            case "drop":
                del holder[last]
            case _ if isinstance(holder, dict):
                holder[draw(st.sampled_from([*TEXTS, *map(str, holder)])) + "x"] = copy.deepcopy(
                    draw(values)
                )
            case _:
                holder.append(copy.deepcopy(draw(values)))
    return document


def table(model: type[BaseModel], depth: int = 3) -> st.SearchStrategy[dict[str, Any]]:
    """Documents as the fields of `model` have them: names and kinds right, nothing else."""
    needed, optional = {}, {}
    for name, field in model.model_fields.items():
        where = needed if field.is_required() else optional
        where[field.alias or name] = _of(field.annotation, depth)
    return st.fixed_dictionaries(needed, optional=optional)


def _of(kind: Any, depth: int) -> st.SearchStrategy[Any]:
    inner = get_args(kind)
    origin = get_origin(kind)
    if depth == 0:
        return ODD
    if origin is Annotated:
        return _of(inner[0], depth)
    if origin is Literal:
        return st.sampled_from(inner)
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return table(kind, depth - 1)
    if origin is dict:
        keys = st.one_of(st.sampled_from(TEXTS), st.text("ab./:_", max_size=6))
        return st.dictionaries(keys, _of(inner[1], depth - 1), max_size=3)
    if origin in (tuple, list):
        return st.lists(_of(inner[0], depth - 1), max_size=3)
    if origin is Union or inner:
        return st.one_of([_of(each, depth) for each in inner if each is not NoneType])
    if kind is int:
        return st.one_of(st.integers(0, 100), st.sampled_from([n for n in NUMBERS if n == n // 1]))
    if kind is float:
        return st.floats()
    if kind is bool:
        return st.booleans()
    return ODD if kind is not str else st.one_of(st.sampled_from(TEXTS), st.text(max_size=9))
