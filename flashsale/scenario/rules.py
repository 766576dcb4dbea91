"""What a shop's answers mean: an ordered list of rules, the first that fits says the outcome. Pure.

A rule can ask for a status, for values in a JSON body by their pointers (RFC 6901), for headers and
for what the body says. Which rule can never have its turn is told before anything is sent.
"""

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

from pydantic import Field, field_validator

from flashsale.model import Doing, Ending, Outcome, Reading, Signing, ending, text_id
from flashsale.scenario.answer import Answer, excerpt, new_answer, plain_text
from flashsale.scenario.said import (
    Said,
    Value,
    check_place,
    ensure_pointer,
    expression,
    finder,
    headers_at,
    place_of,
    value_at,
)
from flashsale.scenario.table import Table, suggestion

QUEUED = "queued"
"""In place of an outcome: not decided yet, ask the step's [poll]."""

_NO_ENDING = (QUEUED, "none", "later")

_CLASS = re.compile(r"[1-5]xx")
_BODILESS = frozenset({*range(100, 200), 204, 205, 304})


class Rule(Table):
    """One rule: all that it asks for has to fit. One that asks for nothing always does."""

    status: tuple[int | str, ...] = Field(
        default=(), strict=False, description="a status, a class such as '4xx', or a list of them"
    )
    equals: dict[str, str | int | float | bool] = Field(
        default_factory=dict, alias="json", description='"/pointer" = "value" in a JSON body'
    )
    matches: dict[str, str] = Field(
        default_factory=dict, description='"/pointer" = "regular expression" in a JSON body'
    )
    header: dict[str, str] = Field(
        default_factory=dict, description='name = "regular expression" of the whole value'
    )
    body: str = Field(default="", description="a regular expression somewhere in the body")
    outcome: str = Field(description="what the answer means, such as 'sold_out'")
    order: str = Field(default="", description="where this answer names an order")

    @field_validator("status", mode="before")
    @classmethod
    def _status_can_be(cls, value: Any) -> Any:
        found = tuple(value) if isinstance(value, list | tuple) else (value,)
        for one in found:
            is_class = isinstance(one, str) and _CLASS.fullmatch(one)
            is_code = isinstance(one, int) and not isinstance(one, bool) and 100 <= one <= 599
            if not (is_class or is_code):
                raise ValueError(
                    f"outcomes: found status {one!r}, expected 100 to 599, or such as '4xx'"
                )
        return found

    @field_validator("matches", "header")
    @classmethod
    def _are_expressions(cls, value: dict[str, str]) -> dict[str, str]:
        for text in value.values():
            _expression(text)
        return value

    @field_validator("body")
    @classmethod
    def _is_expression(cls, value: str) -> str:
        _expression(value)
        return value

    @cached_property
    def codes(self) -> frozenset[int]:
        """The statuses that fit."""
        if not self.status:
            return frozenset(range(100, 600))
        return frozenset(code for one in self.status for code in _codes(one))

    @property
    def terms(self) -> frozenset[tuple[str, str, str]]:
        """What is asked for beside a status."""
        return frozenset(
            {
                *(("json", name, repr(value)) for name, value in self.equals.items()),
                *(("matches", name, text) for name, text in self.matches.items()),
                *(("header", name.lower(), text) for name, text in self.header.items()),
                *([("body", "", self.body)] if self.body else []),
            }
        )

    @property
    def asks_body(self) -> bool:
        """Whether only an answer with a body can fit."""
        return bool(self.equals or self.matches or self.body)


def _codes(one: int | str) -> frozenset[int]:
    if isinstance(one, int):
        return frozenset({one})
    first = int(one[0]) * 100
    return frozenset(range(first, first + 100))


def _expression(text: str) -> None:
    try:
        expression(text)
    except ValueError as error:
        raise ValueError(f"outcomes: {error}") from None


def check_rules(where: str, rules: Sequence[Rule], endings: Collection[str]) -> None:
    """See that each rule can have its turn and names an outcome that there is.

    Raises ValueError with one line.
    """
    for number, rule in enumerate(rules, 1):
        place = f"{where}.outcomes, rule {number}"
        if rule.outcome not in endings:
            listed = ", ".join(endings)
            hint = suggestion(rule.outcome, list(endings))
            raise ValueError(f"{place}: found {rule.outcome!r}{hint}, expected one of {listed}")
        for pointer in (*rule.equals, *rule.matches):
            ensure_pointer(pointer, place)
        check_place(rule.order, place)
        if trouble := _never(rule):
            raise ValueError(f"{place} can never match: {trouble}")
        for earlier, before in enumerate(rules[: number - 1], 1):
            if before.terms <= rule.terms and rule.codes <= before.codes:
                asks = before.terms or before.status
                always = "" if asks else " whatever the answer is"
                raise ValueError(
                    f"{place} can never match: rule {earlier} ({before.outcome}) fits before it"
                    f"{always}; put it above that one"
                )


def _never(rule: Rule) -> str:
    """Why no answer fits; empty where one can."""
    if rule.asks_body and rule.codes <= _BODILESS:
        return f"an answer {min(rule.codes)} has no body"
    for pointer, value in rule.equals.items():
        pattern = rule.matches.get(pointer)
        text = plain_text(value)
        if pattern is not None and (text is None or not re.search(pattern, text)):
            return f"{pointer} is to be {value!r} and to match {pattern!r}"
        for other, below in rule.equals.items():
            if other.startswith(f"{pointer}/"):
                return f"{pointer} is to be {value!r} and to hold {other} ({below!r})"
    return ""


Fits = Callable[[Said], bool]


def _terms_of(rule: Rule) -> list[Fits]:
    """What a rule asks for beside a status, each a function; what is cheap comes first."""
    headers = [_header_fits(name, re.compile(text)) for name, text in rule.header.items()]
    equals = [_equals(pointer, value) for pointer, value in rule.equals.items()]
    matches = [_matches(pointer, re.compile(text)) for pointer, text in rule.matches.items()]
    return [
        *headers,
        *equals,
        *matches,
        *([_body_fits(re.compile(rule.body))] if rule.body else []),
    ]


def _header_fits(header: str, pattern: "re.Pattern[str]") -> Fits:
    name = header.lower().encode("ascii")

    def fits(said: Said) -> bool:
        found = said.headers.get(name)
        return found is not None and pattern.fullmatch(found.decode("latin-1")) is not None

    return fits


def _equals(pointer: str, value: str | float | bool) -> Fits:
    find, is_truth = finder(pointer), isinstance(value, bool)

    def fits(said: Said) -> bool:
        found = find(said.document)
        return bool(found == value) and (type(found) is bool) is is_truth

    return fits


def _matches(pointer: str, pattern: "re.Pattern[str]") -> Fits:
    find = finder(pointer)

    def fits(said: Said) -> bool:
        text = plain_text(find(said.document))
        return text is not None and pattern.search(text) is not None

    return fits


def _body_fits(pattern: "re.Pattern[str]") -> Fits:
    return lambda said: pattern.search(said.text) is not None


class _Turn(NamedTuple):
    """A rule, ready to read: what it asks for, what it means, where it names an order."""

    terms: list[Fits]
    outcome: str
    ending: Ending | None  # None: nothing has ended by it
    order: Value | None

    def fits(self, said: Said) -> bool:
        """Whether an answer of one of its statuses fits."""
        for term in self.terms:  # noqa: SIM110 - a generator costs more than most terms
            if not term(said):
                return False
        return True


@dataclass(frozen=True)
class Meanings:
    """The rules of one step, ready to read answers; `order` is where an id is, `takes` what else is
    taken from an answer: variable → place."""

    rules: tuple[Rule, ...]
    order: str = ""
    takes: Mapping[str, str] = field(default_factory=dict)
    success: Ending = Outcome.SOLD

    @cached_property
    def _by_code(self) -> dict[int, list[_Turn]]:
        """By status, the rules that it can have; filled as statuses come."""
        return {}

    def _turns(self, status: int) -> list[_Turn]:
        found = self._by_code.get(status)
        if found is None:
            found = [self._turn(rule) for rule in self.rules if status in rule.codes]
            self._by_code[status] = found
        return found

    def _turn(self, rule: Rule) -> _Turn:
        named = rule.outcome in (QUEUED, Outcome.SOLD)
        place = rule.order or (self.order if named else "")
        meant = None if rule.outcome in _NO_ENDING else ending(rule.outcome)
        return _Turn(_terms_of(rule), rule.outcome, meant, value_at(place) if place else None)

    @cached_property
    def headers(self) -> frozenset[bytes]:
        """The headers that are looked at, their names in lower case."""
        places = [self.order, *self.takes.values(), *(rule.order for rule in self.rules)]
        named = {name.lower().encode("ascii") for rule in self.rules for name in rule.header}
        return frozenset(named | headers_at(places))

    @property
    def any_id_will_do(self) -> bool:
        """Whether what an answer means cannot depend on which order it names: no rule looks where
        an id is, or by an expression that could find one, and none is taken out of more text."""
        places = {self.order, *(rule.order for rule in self.rules)} - {""}
        looks = {name for rule in self.rules for name in rule.equals}
        texts = [text for rule in self.rules for text in rule.header.values()]
        searches = any(rule.matches or rule.body for rule in self.rules)
        return (
            not (searches or places & looks)
            and all(text == re.escape(text) for text in texts)
            and all(place_of(place).pattern is None for place in places)
        )

    def __getstate__(self) -> dict[str, Any]:
        """Without what is made of it: functions do not travel to another process."""
        hidden = ("_by_code", "headers")
        return {name: value for name, value in self.__dict__.items() if name not in hidden}

    def read(self, status: int, headers: Mapping[bytes, bytes], body: bytes) -> Answer:
        """What the answer means. One that no rule knows is as good as its status."""
        said = Said(status, headers, body)
        for turn in self._turns(status):
            if turn.fits(said):
                return _answer(said, turn)
        return self._by_status(said)

    def said_of(
        self, status: int, headers: Mapping[bytes, bytes], body: bytes
    ) -> tuple[str, str | None] | None:
        """The outcome of the rule that fits, as it is written, and the order that the answer names;
        None where no rule fits."""
        said = Said(status, headers, body)
        for turn in self._turns(status):
            if turn.fits(said):
                named = turn.order(said) if turn.order else None
                return turn.outcome, None if named is None else text_id(named)
        return None

    def taken(self, status: int, headers: Mapping[bytes, bytes], body: bytes) -> dict[str, str]:
        """What the answer gives to later steps."""
        said = Said(status, headers, body)
        found = {name: value_at(place)(said) for name, place in self.takes.items()}
        return {name: value for name, value in found.items() if value is not None}

    def _by_status(self, said: Said) -> Answer:
        status, evidence = said.status, excerpt(said.body) or None
        if status == 429:
            return Answer(Outcome.RATE_LIMITED, status)
        if self.success is not Outcome.SOLD and not self.rules:
            if 200 <= status < 400 or (self.success in Reading and status == 404):
                return Answer(self.success, status)
            if status == 503:
                return Answer(Outcome.SHED, status)
        if 200 <= status < 400 and self.success is Outcome.SOLD:
            return Answer(Outcome.UNKNOWN, status, None, "rule", evidence)
        failed = Outcome.REFUSED if status < 500 else Outcome.INDETERMINATE
        return Answer(failed, status, None, f"http_{status}", evidence)


def _answer(said: Said, turn: _Turn) -> Answer:
    named = turn.order(said) if turn.order is not None else None
    order = None if named is None else text_id(named)
    meant = turn.ending
    if meant is None:
        return Answer(Outcome.UNKNOWN, said.status, order, QUEUED)
    if meant is Outcome.SOLD and order is None and turn.order is not None:
        evidence = excerpt(said.text if named is None else named)
        return Answer(Outcome.UNKNOWN, said.status, None, "order_id", evidence)
    error = "unknown" if meant is Outcome.UNKNOWN else None
    if meant is Outcome.REFUSED or meant is Outcome.INDETERMINATE:
        error = f"http_{said.status}"
    return new_answer((meant, said.status, order, error, None))


SUCCESS: Mapping[str, Ending] = {
    "buy": Outcome.SOLD,
    "browse": Reading.ANSWERED,
    "sign": Signing.SIGNED,
    **dict.fromkeys(("login", "cart", "pay", "cancel"), Doing.DONE),
}
"""What a step is, where it went well."""
