"""Somebody's shop, as a file describes it: what each step asks, and what its answers mean.

Without a step of its own the target is of the family, and nothing here has a say. With one, every
step that a scenario takes has to be described.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from flashsale.books import check_names
from flashsale.scenario import template
from flashsale.scenario.load import HOUR_MS, Step
from flashsale.scenario.rules import QUEUED, SUCCESS, Meanings, Rule, check_rules
from flashsale.scenario.said import check_place
from flashsale.scenario.target import Routes
from flashsale.scenario.template import Piece, Prepared, RequestTemplate, Values, check_headers
from flashsale.scenario.thresholds import ENDPOINTS
from flashsale.scenario.tokens import ID_COLUMN

_VARIABLE_NAME = re.compile(r"[a-z_][a-z0-9_]{0,31}")
_POLLED = (QUEUED, "sold", "sold_out", "duplicate", "ended", "refused", "shed", "unknown")


_NO_WORD_OF_IT = Rule(status=("4xx",), outcome="indeterminate")

LOOKED_UP = ("sold", "none", "later")
"""What a look after a claim in doubt can find."""


class Poll(RequestTemplate):
    """How a queued claim is asked after, until an answer says what became of it. The last of them
    ends the claim's response; all of it has to come within timeouts.request_ms."""

    method: Literal["GET", "POST", "PUT", "PATCH", "DELETE"] = Field(
        default="GET", description="the method"
    )
    every_ms: int = Field(
        default=200, ge=10, le=HOUR_MS, description="from an answer to the next question"
    )
    order: str = Field(default="", description="where the order id is; else the queued answer's")
    outcomes: tuple[Rule, ...] = Field(
        strict=False, min_length=1, description="the rules, in their order"
    )


class Lookup(RequestTemplate):
    """What is asked after the storm about a claim in doubt, once its deadline has passed: whether
    an order came of it after all. `none` is final, `later` is asked again."""

    method: Literal["GET"] = Field(default="GET", description="the method")
    order: str = Field(default="", description="where the order id is, or '' for none")
    outcomes: tuple[Rule, ...] = Field(
        strict=False, min_length=1, description="the rules: 'sold', 'none' or 'later'"
    )

    def meanings(self) -> Meanings:
        """What its answers mean."""
        return Meanings(self.outcomes, self.order)

    def asked(self, values: Values, common: Mapping[str, str]) -> tuple[str, dict[str, str]]:
        """The path, with its query, and the headers of one question."""
        path = template.fill(template.in_path(self.path), values)
        if self.query:
            sign = "&" if "?" in self.path else "?"
            path += sign + template.fill(template.in_form(self.query), values)
        headers = {**common, **self.headers}
        return path, {n: template.fill(template.in_header(t), values) for n, t in headers.items()}


class StepTable(RequestTemplate):
    """One step of a shop's own."""

    order: str = Field(
        default="",
        description="where the order id is: '/pointer', 'header:name', 'body:pattern', '' for "
        "none, or the template of an id that the request gives, such as '{uuid}'",
    )
    outcomes: tuple[Rule, ...] = Field(
        default=(), strict=False, description="the rules, in their order"
    )
    take: dict[str, str] = Field(
        default_factory=dict, description="variable = where an answer gives it to later steps"
    )
    poll: Poll | None = Field(default=None, description="the table [target.STEP.poll]")

    @property
    def order_given(self) -> list[Piece]:
        """The template of the order id that the request gives; none where an answer tells it."""
        is_place = self.order.startswith(("/", "header:", "cookie:", "body:"))
        return [] if is_place or "{" not in self.order else template.in_text(self.order)

    def meanings(self, name: str) -> Meanings:
        """What its answers mean."""
        place = "" if self.order_given else self.order
        return Meanings(self.outcomes, place, self.take, SUCCESS[name])

    def polled(self) -> Meanings:
        """What the answers to its questions mean. One that no rule knows refuses the question, and
        says nothing of the claim, which was taken."""
        assert self.poll is not None
        return Meanings((*self.poll.outcomes, _NO_WORD_OF_IT), self.poll.order)


class Shop(Routes):
    """A target: routes of the family, or steps of a shop's own. In such a shop a route that is not
    given is not there."""

    preset: str = Field(default="", description="what this begins with, such as 'hm-dianping'")
    headers: dict[str, str] = Field(
        default_factory=dict, description='name = "value" of every step'
    )
    vouchers: tuple[str | int, ...] = Field(
        default=(),
        strict=False,
        max_length=10_000,
        description="what the shop calls vouchers 1, 2, 3 …, where it is not that",
    )
    user_column: str = Field(
        default=ID_COLUMN,
        pattern=r"^[A-Za-z0-9_-]{1,64}$",
        description="the column of the users' file with the id by which the books know them",
    )
    buy: StepTable | None = Field(default=None, description="the table [target.buy]: the claim")
    browse: StepTable | None = Field(default=None, description="the table [target.browse]")
    sign: StepTable | None = Field(default=None, description="the table [target.sign]")
    login: StepTable | None = Field(default=None, description="the table [target.login]")
    cart: StepTable | None = Field(default=None, description="the table [target.cart]")
    pay: StepTable | None = Field(default=None, description="the table [target.pay]")
    cancel: StepTable | None = Field(default=None, description="the table [target.cancel]")
    lookup: Lookup | None = Field(default=None, description="the table [target.lookup]")

    @field_validator("vouchers")
    @classmethod
    def _vouchers_are_ids(cls, names: tuple[str | int, ...]) -> tuple[str, ...]:
        return check_names("target.vouchers", names)

    def name_of(self, voucher: int) -> str:
        """What the shop calls a voucher."""
        within = 1 <= voucher <= len(self.vouchers)
        return str(self.vouchers[voucher - 1]) if within else str(voucher)

    @property
    def described(self) -> dict[Step, StepTable]:
        """The steps that the file describes."""
        found = ((step, getattr(self, step.endpoint)) for step in Step)
        return {step: table for step, table in found if table is not None}

    @property
    def is_own(self) -> bool:
        """Whether it is a shop of its own kind, and not of the family."""
        return bool(self.described)

    @property
    def routes(self) -> Routes:
        """What is asked beside the steps."""
        if not self.is_own:
            return self
        given = {name: getattr(self, name) for name in Routes.model_fields}
        unset = dict.fromkeys(given.keys() - self.model_fields_set, "")
        return Routes.model_construct(**{**given, **unset})

    @model_validator(mode="after")
    def _steps_are_whole(self) -> Self:
        check_headers(self.headers)
        for name in ("vouchers", "user_column"):
            if name in self.model_fields_set and not self.is_own:
                raise ValueError(f"target.{name}: this is for a shop with [target.buy]")
        taken = self._taken
        for step, table in self.described.items():
            where = f"target.{step.endpoint}"
            _check_takes(where, table.take)
            if table.order_given:
                _check_given(where, step, table.order_given)
            else:
                check_place(table.order, f"{where}.order")
            _check_outcomes(where, step, table)
            _check_known(where, table, self.headers, taken)
            self._check_numbers(where, table.prepared("host", "", self.headers))
            if table.poll is not None:
                _check_poll(where, table.poll, taken)
        if self.lookup is not None:
            self._check_lookup(self.lookup)
        return self

    def _check_numbers(self, where: str, prepared: Prepared) -> None:
        odd = next((n for n in self.vouchers if not template.is_number(str(n))), None)
        if odd is not None and "voucher" in template.numbers_in(prepared.body or ()):
            raise ValueError(
                f"{where}: found {{voucher:number}}, and target.vouchers has {odd!r}, which is no "
                "number; write {voucher}"
            )

    def _check_lookup(self, lookup: Lookup) -> None:
        where = "target.lookup"
        if self.buy is None:
            raise ValueError(f"{where}: this is for a shop with [target.buy]")
        check_place(lookup.order, f"{where}.order")
        check_rules(where, lookup.outcomes, LOOKED_UP)
        _check_known(where, lookup, self.headers, ())

    @property
    def _taken(self) -> list[str]:
        """Variables that answers give, in no order."""
        named = [name for table in self.described.values() for name in table.take]
        return [*named, *([template.ORDER] if self.buy and self.buy.order else [])]

    def missing(self, steps: Iterable[Step]) -> str:
        """What keeps a scenario from taking these steps, in this order; empty where nothing."""
        known: set[str] = set()
        before: set[Step] = set()
        for step in steps:
            table = self.described.get(step)
            if table is None:
                if step.is_shops_own or self.is_own:
                    return f"target.{step.endpoint}: missing, expected what this step asks"
                continue
            if step.needs_order and Step.BUY not in before:
                return f"load.steps: {step.endpoint!r} follows 'buy', since it needs an order"
            late = self.names(step) - set(template.PLANNED)
            for name in sorted(late):
                if template.column_of(name) is None and name not in known:
                    return f"target.{step.endpoint}: no step before it takes {{{name}}}"
            known |= {*table.take, *([template.ORDER] if step is Step.BUY else [])}
            before.add(step)
        return ""

    def names(self, step: Step) -> frozenset[str]:
        """The variables of a step."""
        return self.described[step].prepared("host", "", self.headers).names

    @property
    def order_given(self) -> list[Piece]:
        """The template of the order id that a claim gives; none where an answer tells it."""
        return self.buy.order_given if self.buy else []

    @property
    def names_asked(self) -> frozenset[str]:
        """The variables of everything that can be asked."""
        polls = (table.poll for table in self.described.values())
        every = (*self.described.values(), *polls, self.lookup)
        found = (request.prepared("", "", self.headers).names for request in every if request)
        return frozenset(template.names_in(self.order_given)).union(*found)

    def columns(self, steps: Iterable[Step]) -> set[str]:
        """The columns of the users' file that these steps need, the token's among them."""
        names = {name for step in steps if step in self.described for name in self.names(step)}
        names |= set(template.names_in(self.order_given))
        taken = set(self._taken)
        found = {column for name in names if (column := template.column_of(name))}
        return found | ({"token"} if "token" in names - taken else set())


def _check_known(
    where: str, request: RequestTemplate, common: Mapping[str, str], taken: Iterable[str]
) -> None:
    """Raises ValueError for a variable that there is not."""
    for part, names in request.variables(common).items():
        for name in sorted(names):
            if not template.is_known(name, taken):
                place = part if "." in part else f"{where}.{part}"
                raise ValueError(f"{place}: {template.unknown(name, taken)}")


def _check_given(where: str, step: Step, order: list[Piece]) -> None:
    if step is not Step.BUY:
        raise ValueError(f"{where}.order: only a claim, [target.buy], gives an order its id")
    for name in template.names_in(order):
        if not template.is_known(name, ()):
            raise ValueError(f"{where}.order: {template.unknown(name, ())}")


def _check_takes(where: str, takes: Mapping[str, str]) -> None:
    for name, place in takes.items():
        if not _VARIABLE_NAME.fullmatch(name) or name in set(template.PLANNED) - {"token"}:
            raise ValueError(
                f"{where}.take: found {name!r}, expected a name in small letters that is none of "
                f"{', '.join(n for n in template.PLANNED if n != 'token')}"
            )
        if not place:
            raise ValueError(f"{where}.take.{name}: expected where it is, such as '/data/token'")
        check_place(place, f"{where}.take.{name}")


def _check_outcomes(where: str, step: Step, table: StepTable) -> None:
    usual = [str(end) for end in ENDPOINTS[step.endpoint]]
    endings = [*usual, *([QUEUED] if table.poll else [])]
    asked = any(rule.outcome == QUEUED for rule in table.outcomes)
    if asked and table.poll is None:
        raise ValueError(f"{where}.outcomes: {QUEUED!r} needs the table [{where}.poll]")
    check_rules(where, table.outcomes, endings)
    if table.poll is not None and not asked:
        raise ValueError(f"{where}.poll: no rule of {where}.outcomes says {QUEUED!r}")
    if step is Step.BUY:
        final = table.outcomes + (table.poll.outcomes if table.poll else ())
        if not any(rule.outcome in ("sold", "unknown") for rule in final):
            raise ValueError(
                f"{where}.outcomes: no rule says 'sold', so nothing ever could be; where no answer "
                "tells what was sold, one says 'unknown'"
            )
    elif table.poll is not None:
        raise ValueError(f"{where}.poll: this is for a claim, [target.buy]")


def _check_poll(where: str, poll: Poll, taken: Iterable[str]) -> None:
    check_rules(f"{where}.poll", poll.outcomes, _POLLED)
    check_place(poll.order, f"{where}.poll.order")
    _check_known(f"{where}.poll", poll, {}, [*taken, template.ORDER])
