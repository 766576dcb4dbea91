"""The tables of a scenario's or a shop's file: frozen, strict, with one line for whatever is wrong
in one; and a shop's file, laid over the preset that it names.
"""

import re
import tomllib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from reprlib import Repr
from typing import Any, get_args

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from flashsale.errors import UsageError
from flashsale.files import resource
from flashsale.scenario.tokens import NOT_UTF8


class Table(BaseModel):
    """Takes the keys it knows, as the types they have."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, defer_build=True)


Texts = Mapping[str, str]
"""What was written, by the name of its file; where two say the same, the first counts."""
NO_TEXTS: Texts = {}


def one_line(error: ValidationError, document: type[Table], source: str, texts: Texts) -> str:
    """The first error, a misspelt key before whatever follows from it; with the file and the line
    that it is in, where these texts have it, else with `source`."""
    details = sorted(_of_values(error), key=lambda detail: detail["type"] != "extra_forbidden")
    more = f" (and {len(details) - 1} more)" if len(details) > 1 else ""
    sentence = _sentence(details[0], document)
    return f"{_where(details[0]['loc'], sentence, texts) or source}: {in_short(sentence)}{more}"


_KINDS = ("str", "int", "float", "bool")


def _of_values(error: ValidationError) -> Iterator[ErrorDetails]:
    """The errors, one a value: one that may be of several kinds is wrong once for each of them."""
    found: dict[tuple[int | str, ...], list[ErrorDetails]] = {}
    for detail in error.errors():
        place = detail["loc"]
        found.setdefault(place[:-1] if place and place[-1] in _KINDS else place, []).append(detail)
    for place, told in found.items():
        if len(told) > 1 and place not in [detail["loc"] for detail in told]:
            yield {**told[0], "loc": place, "type": "kind", "msg": "text, a number, true or false"}
        else:
            yield from told


def suggestion(name: str, known: list[str]) -> str:
    """A question for a name that is close to a known one, else nothing."""
    close = get_close_matches(name, known, n=1)
    return f", did you mean {close[0]!r}?" if close else ""


def _sentence(detail: ErrorDetails, document: type[Table]) -> str:
    if detail["type"] == "value_error":
        return str(detail["ctx"]["error"])
    path, kind = ".".join(str(part) for part in detail["loc"]), detail["type"]
    table, key = detail["loc"][:-1], str(detail["loc"][-1])
    if kind == "extra_forbidden":
        known = list(_fields_of(table, document))
        return f"{path}: no such key{suggestion(key, known)}; expected one of {', '.join(known)}"
    if kind == "missing":
        return f"{path}: missing, expected {_fields_of(table, document)[key].description}"
    return f"{path}: found {shown(detail['input'])}, expected {_expected(detail)}"


def unquoted(table: str, key: str, value: object) -> str:
    """What is wrong with a key of `table` that holds a table where a value belongs: TOML takes the
    dots in a key without quotes for tables in tables."""
    while isinstance(value, dict) and value:
        inner, value = next(iter(value.items()))
        key = f"{key}.{inner}"
    example = f'"{value}"' if isinstance(value, str) else '"…"'
    return f'{table}.{key}: a key with dots needs quotes; write "{key}" = {example}'


def _expected(detail: ErrorDetails) -> str:
    match detail["type"]:
        case "int_type" | "int_from_float":
            return "a whole number"
        case "greater_than_equal":
            return f"at least {detail['ctx']['ge']:,}"
        case "less_than_equal":
            return f"at most {detail['ctx']['le']:,}"
        case "string_pattern_mismatch":
            letters = "letters" if "A-Z" in detail["ctx"]["pattern"] else "lower-case letters"
            return f"{letters}, digits, '-' and '_'"
        case "model_type" | "dict_type":
            is_named = all(isinstance(part, str) for part in detail["loc"])
            return f"a table, [{'.'.join(map(str, detail['loc']))}]" if is_named else "a table"
        case "string_type":
            return "text, in quotes"
        case "tuple_type":
            found = detail["input"]
            return f'a list, such as ["{found[:40]}"]' if isinstance(found, str) else "a list"
        case _:
            return detail["msg"].removeprefix("Input should be ")


def shown(value: object) -> str:
    """A value in an error: short, however long it is or deep it nests."""
    return "a table" if isinstance(value, dict) else _SHORT.repr(value)


def in_short(sentence: str) -> str:
    """An error whose names are a file's own, and may be of any length: its begin and its end."""
    if len(sentence) <= _SENTENCE_MAX:
        return sentence
    return f"{sentence[: _SENTENCE_MAX // 2]} … {sentence[-_SENTENCE_MAX // 2 :]}"


_SENTENCE_MAX = 1_000
_SHORT = Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 80


def _fields_of(table: tuple[int | str, ...], document: type[Table]) -> dict[str, FieldInfo]:
    """The fields of the table at this path, by the key under which a file gives them."""
    model: type[BaseModel] = document
    for part in table:
        if isinstance(part, str):  # a number is a place in a list of tables
            model = _table_in(_by_key(model)[part].annotation) or model
    return _by_key(model)


def _by_key(model: type[BaseModel]) -> dict[str, FieldInfo]:
    return {field.alias or name: field for name, field in model.model_fields.items()}


def _table_in(annotation: object) -> type[BaseModel] | None:
    """The table that an annotation is of: itself, or an optional one, or a list of them."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(filter(None, map(_table_in, get_args(annotation))), None)


# Lines --------------------------------------------------------------------------------------------

_Place = tuple[int | str, ...]
_NAMED = re.compile(r"((?:[a-z_0-9]+\.)*[a-z_0-9]+)(?:, rule ([0-9]+)|:)")
"""How an error names a place by itself: `target.buy.outcomes, rule 2`, `books.orders:`, `path:`."""


def _where(place: _Place, sentence: str, texts: Texts) -> str:
    """The file and the line of what is wrong; empty where no text has any of it."""
    places = [place]
    if named := _NAMED.match(sentence):
        rule = () if named[2] is None else (int(named[2]) - 1,)
        inner: _Place = (*named[1].split("."), *rule)
        places += [inner, (*place, *inner)]
    found = [
        (depth, -number, name, text, each)
        for number, (name, text) in enumerate(texts.items())
        for each in places
        if (depth := _depth(_read(text), each))
    ]
    if not found:
        return ""
    depth, _, name, text, each = max(found, key=lambda it: it[:2])
    return f"{name} line {_line_of(text, each[:depth])}"


def _read(text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError):
        return {}


def _depth(document: Any, place: _Place) -> int:
    """How much of a place there is in a document."""
    for depth, part in enumerate(place):
        is_there = (
            part in document
            if isinstance(document, dict)
            else isinstance(document, list) and isinstance(part, int) and part < len(document)
        )
        if not is_there:
            return depth
        document = document[part]
    return len(place)


def _line_of(text: str, place: _Place) -> int:
    """The line in which a place of a TOML text is written, where the text has it. The parser tells
    none, so each statement is read by itself, as many lines as it takes."""
    lines, begin = text.splitlines(), 0
    table: _Place = ()
    seen: Counter[str] = Counter()
    for end in range(1, len(lines) + 1):
        statement = "\n".join(lines[begin:end])
        told = _read(statement)
        if not told and statement.strip() and not _is_comment(statement):
            continue
        if statement.lstrip().startswith("["):
            table = _table_named(told, seen)
        inner = place[len(table) :]
        if place[: len(table)] == table[: len(place)] and _depth(told, inner) == len(inner):
            ends = (n for n in range(begin + 1, end) if _has(lines[begin:n], inner))
            return next(ends, begin + 1)
        begin = end
    return 1


def _is_comment(statement: str) -> bool:
    return all(line.lstrip()[:1] in ("", "#") for line in statement.splitlines())


def _has(lines: Sequence[str], place: _Place) -> bool:
    """Whether a list has this place that would end here."""
    return bool(place) and _depth(_read("\n".join([*lines, "]"])), place) == len(place)


def _table_named(told: Any, seen: Counter[str]) -> _Place:
    """The place of the table that a header begins; of several of one name, which."""
    place: list[int | str] = []
    while told:
        if isinstance(told, list):
            name = ".".join(map(str, place))
            place.append(seen[name])
            seen[name] += 1
            told = told[0]
        else:
            ((name, told),) = told.items()
            place.append(name)
    return tuple(place)


_AT_LINE = re.compile(r"\(at line ([0-9]+), column [0-9]+\)")
_DEMAND = re.compile(
    r"""\s*["']?([\w.]+)["']?\s*=?\s*["']?([<>=]=?\s*[0-9.]+\s*[\w%/µ]*)["']?\s*"""
)
_BARE = re.compile(r"""\s*([^"'=\[#]{1,200}?)\s*=\s*("[^"]*")\s*""")
"""A key without quotes that needs them, before a text."""


def not_toml(source: str, error: Exception, text: str) -> str:
    """What is wrong with a text that is no TOML: the line, and what to write where a threshold, a
    message or a text was meant."""
    match, lines = _AT_LINE.search(str(error)), text.splitlines()
    there = ""
    if match is not None and 0 < int(match[1]) <= len(lines):
        line = lines[int(match[1]) - 1]
        there = f": {shown(line.strip())}"
        if "Cannot overwrite a value" in str(error):
            there += "; the key stands twice, leave one out"
        elif demand := _DEMAND.fullmatch(line):
            there += f'; write "{demand[1]}" = "{demand[2].strip()}"'
        elif bare := _BARE.fullmatch(line):
            there += f'; write "{bare[1]}" = {bare[2]}'
        elif "Invalid value" in str(error):
            there += "; text stands in quotes"
    return f"{source} is not TOML: {in_short(f'{error}{there}')}"


# Files and presets --------------------------------------------------------------------------------

TABLES = ("target", "books")
"""What a file of a shop holds."""


def preset_names() -> list[str]:
    """The shops that ship with flashsale."""
    return sorted(path.stem for path in resource("scenarios").glob("targets/*.toml"))


_CHARACTERS_MAX = 4 * 1024 * 1024


def read_document(path: Path, what: str) -> str:
    """The text of the TOML file at `path`, which is `what`: "scenario", "target".

    Raises UsageError, in one line, also for a text without an end in sight.
    """
    try:
        with path.open(encoding="utf-8-sig") as file:
            text = file.read(_CHARACTERS_MAX + 1)
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else NOT_UTF8
        raise UsageError(f"{what} {path}: {reason}") from error
    if len(text) > _CHARACTERS_MAX:
        raise UsageError(
            f"{what} {path}: more than {_CHARACTERS_MAX:,} characters, expected a .toml file"
        )
    return text


def shop_document(name: str) -> dict[str, Any]:
    """The tables of a shop's file, or of the preset called so, on what its own preset says. A
    scenario's file is one, too. Raises UsageError.
    """
    path = Path(name)
    if path.suffix != ".toml" and "/" not in name:
        return _preset(name, "--target")
    text = read_document(path, "target")
    try:
        document = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageError(not_toml(str(path), error, text)) from error
    if "schema" in document:  # a scenario with its shop in it
        document = {table: document[table] for table in TABLES if table in document}
    strange = next((key for key in document if key not in TABLES), None)
    if strange is not None:
        raise UsageError(
            f"{_where((strange,), '', {name: text}) or path}: {in_short(strange)}: no such table"
            f"{suggestion(strange, list(TABLES))}; "
            f"expected {' and '.join(f'[{table}]' for table in TABLES)}"
        )
    return on_preset(document, str(path), {name: text})


def texts_of(name: str | None) -> Texts:
    """What a shop's file says, by its name; nothing of a preset, which is right."""
    if name is None or (Path(name).suffix != ".toml" and "/" not in name):
        return {}
    try:
        return {name: read_document(Path(name), "target")}
    except UsageError:
        return {}


def on_preset(document: dict[str, Any], source: str, texts: Texts) -> dict[str, Any]:
    """A document's tables laid over those of the preset that its [target] names; what that calls
    the vouchers is what the books call them, where they do not say otherwise."""
    target = document.get("target")
    if not isinstance(target, dict):
        return document
    name = target.get("preset")
    if isinstance(name, str) and name:
        where = _where(("target", "preset"), "", texts) or source
        document = _laid_over(_preset(name, f"{where}: target.preset"), document)
    books, vouchers = document.get("books"), target.get("vouchers")
    if isinstance(books, dict) and vouchers and "vouchers" not in books:
        document = {**document, "books": {**books, "vouchers": vouchers}}
    return document


def _preset(name: str, where: str) -> dict[str, Any]:
    names = preset_names()
    if name not in names:
        raise UsageError(
            f"{where}: no preset {shown(name)}{suggestion(name, names)}; there are "
            f"{', '.join(names)}, or give the path of a .toml file"
        )
    text = (resource("scenarios") / "targets" / f"{name}.toml").read_text(encoding="utf-8")
    document: dict[str, Any] = tomllib.loads(text)
    document.setdefault("target", {})["preset"] = name
    return document


def _laid_over(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Tables are merged key by key; whatever else stands above counts."""
    return dict(_merged(below, above))


def _merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for key in {**below, **above}:
        low, high = below.get(key), above.get(key, below.get(key))
        if isinstance(low, dict) and isinstance(high, dict):
            yield key, _laid_over(low, high)
        else:
            yield key, high
