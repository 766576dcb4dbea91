"""What a shop's answers mean: an ordered list of rules, the first that fits says the outcome. Pure.

A rule can ask for a status, for values in a JSON body by their pointers (RFC 6901), for headers and
for what the body says. Which rule can never have its turn is told before anything is sent.
"""

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from pydantic import Field, field_validator

from flashsale.asking import at_pointer
from flashsale.model import Doing, Ending, Outcome, Reading, Signing, ending, text_id
from flashsale.scenario.answer import Answer, excerpt, plain_text
from flashsale.scenario.said import (
    Said,
    check_place,
    ensure_pointer,
    expression,
    headers_at,
)
from flashsale.scenario.table import Table, suggestion

QUEUED = "queued"
"""In place of an outcome: not decided yet, ask the step's [poll]."""

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


def _fits(rule: Rule) -> Fits:
    """The rule as one function; what is cheap to ask comes first."""
    codes = rule.codes
    headers = [(n.lower().encode("ascii"), re.compile(p)) for n, p in rule.header.items()]
    wanted = list(rule.equals.items())
    patterns = [(pointer, re.compile(text)) for pointer, text in rule.matches.items()]
    body = re.compile(rule.body) if rule.body else None

    def fits(said: Said) -> bool:
        if said.status not in codes:
            return False
        for name, pattern in headers:
            found = said.headers.get(name)
            if found is None or not pattern.fullmatch(found.decode("latin-1")):
                return False
        for pointer, value in wanted:
            at = at_pointer(said.document, pointer)
            if at != value or isinstance(at, bool) != isinstance(value, bool):
                return False
        for pointer, pattern in patterns:
            text = plain_text(at_pointer(said.document, pointer))
            if text is None or not pattern.search(text):
                return False
        return body is None or body.search(said.text) is not None

    return fits


@dataclass(frozen=True)
class Meanings:
    """The rules of one step, ready to read answers; `order` is where an id is, `takes` what else is
    taken from an answer: variable → place."""

    rules: tuple[Rule, ...]
    order: str = ""
    takes: Mapping[str, str] = field(default_factory=dict)
    success: Ending = Outcome.SOLD

    @cached_property
    def _turns(self) -> list[tuple[Fits, str, str]]:
        return [(_fits(rule), rule.outcome, rule.order) for rule in self.rules]

    @cached_property
    def headers(self) -> frozenset[bytes]:
        """The headers that are looked at, their names in lower case."""
        places = [self.order, *self.takes.values(), *(rule.order for rule in self.rules)]
        named = {name.lower().encode("ascii") for rule in self.rules for name in rule.header}
        return frozenset(named | headers_at(places))

    def __getstate__(self) -> dict[str, Any]:
        """Without what is made of it: functions do not travel to another process."""
        hidden = ("_turns", "headers")
        return {name: value for name, value in self.__dict__.items() if name not in hidden}

    def read(self, status: int, headers: Mapping[bytes, bytes], body: bytes) -> Answer:
        """What the answer means. One that no rule knows is as good as its status."""
        said = Said(status, headers, body)
        for fits, outcome, order in self._turns:
            if fits(said):
                return self._answer(said, outcome, order)
        return self._by_status(said)

    def said_of(
        self, status: int, headers: Mapping[bytes, bytes], body: bytes
    ) -> tuple[str, str | None] | None:
        """The outcome of the rule that fits, as it is written, and the order that the answer names;
        None where no rule fits."""
        said = Said(status, headers, body)
        for fits, outcome, order in self._turns:
            if fits(said):
                place = order or self.order
                named = said.value(place) if place else None
                return outcome, None if named is None else text_id(named)
        return None

    def taken(self, status: int, headers: Mapping[bytes, bytes], body: bytes) -> dict[str, str]:
        """What the answer gives to later steps."""
        said = Said(status, headers, body)
        found = {name: said.value(place) for name, place in self.takes.items()}
        return {name: value for name, value in found.items() if value is not None}

    def _answer(self, said: Said, outcome: str, own_place: str) -> Answer:
        place = own_place or (self.order if outcome in (QUEUED, Outcome.SOLD) else "")
        named = said.value(place) if place else None
        order = text_id(named) if named is not None else None
        if outcome == QUEUED:
            return Answer(Outcome.UNKNOWN, said.status, order, QUEUED)
        meant = ending(outcome)
        if meant is Outcome.SOLD and place and order is None:
            said_of_it = named if named is not None else said.text
            return Answer(Outcome.UNKNOWN, said.status, None, "order_id", excerpt(said_of_it))
        error = "unknown" if meant is Outcome.UNKNOWN else None
        if meant in (Outcome.REFUSED, Outcome.INDETERMINATE):
            error = f"http_{said.status}"
        return Answer(meant, said.status, order, error)

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


SUCCESS: Mapping[str, Ending] = {
    "buy": Outcome.SOLD,
    "browse": Reading.ANSWERED,
    "sign": Signing.SIGNED,
    **dict.fromkeys(("login", "cart", "pay", "cancel"), Doing.DONE),
}
"""What a step is, where it went well."""
