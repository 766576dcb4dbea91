"""The load of a scenario: who comes, when, what each does, and over how many connections."""

import re
from collections.abc import Iterable, Iterator
from enum import IntEnum
from fractions import Fraction
from functools import cached_property
from typing import Literal, NamedTuple, Self

from pydantic import Field, model_validator

from flashsale.scenario.answer import REASONS
from flashsale.scenario.table import Table

HOUR_MS = 3_600_000
ARRIVALS_MAX = 5_000_000
ATTEMPTS_MAX = 10_000_000
_S_US = 1_000_000
_NUMBER = r"([0-9]{1,9}(?:\.[0-9]{1,9})?)"
_STAGE = re.compile(rf"{_NUMBER}(ms|s|m):{_NUMBER}(?:\.\.{_NUMBER})?")
_SECONDS = {"ms": Fraction(1, 1000), "s": Fraction(1), "m": Fraction(60)}
_FOR_VISITS = ("think_ms", "think", "clicks", "retry", "refresh")


class Step(IntEnum):
    """What one attempt asks of the target. The value is the code in a plan's column; the name
    in lower case is the endpoint's."""

    BUY = 0  # POST /voucher-order/seckill/{voucher}: the claim
    BROWSE = 1  # GET /shop/{shop}
    SIGN = 2  # POST /user/sign: the daily sign-in, with a session that is there already
    LOGIN = 3  # the others are a shop's own, as its [target] says
    CART = 4
    PAY = 5
    CANCEL = 6

    @property
    def endpoint(self) -> str:
        """As thresholds and figures name it."""
        return self.name.lower()

    @property
    def needs_user(self) -> bool:
        """Whether only a user with a session can take it."""
        return self is not Step.BROWSE

    @property
    def needs_order(self) -> bool:
        """Whether only a user who was sold something in this storm takes it."""
        return self in (Step.PAY, Step.CANCEL)

    @property
    def is_shops_own(self) -> bool:
        """Whether only a shop whose [target] describes it has it."""
        return self >= Step.LOGIN


STEP_OF = {step.endpoint: step for step in Step}
"""Each step by its endpoint."""


class Stage(NamedTuple):
    """When its arrivals come, how many they are, and the rates from which it rises or falls to
    which, evenly."""

    begin_us: int
    length_us: int
    arrivals: int
    first_per_s: Fraction
    last_per_s: Fraction


class Retry(Table):
    """What a user does about a claim that came to nothing for no reason of the sale."""

    on: tuple[str, ...] = Field(
        strict=False, min_length=1, description="what to try again after, such as 'shed'"
    )
    times: int = Field(default=1, ge=1, le=20, description="how often, at most")
    backoff_ms: int = Field(
        default=100, ge=0, le=60_000, description="before the first, doubled for each further one"
    )

    @model_validator(mode="after")
    def _reasons_are_known(self) -> Self:
        for reason in self.on:
            if reason not in REASONS:
                raise ValueError(
                    f"load.retry.on: found {reason!r}, expected some of {', '.join(REASONS)}"
                )
        return self


class Refresh(Table):
    """How often a user reads the page of a shop beside a claim."""

    reads: int = Field(default=0, ge=0, le=1_000, description="reads before the claim")
    between: int = Field(default=0, ge=0, le=100, description="reads before each retry")
    pause_ms: int = Field(default=0, ge=0, le=HOUR_MS, description="before each of them")


class Load(Table):
    """Three models. `stampede`: every user once, after the barrier. `rate`: everybody comes at
    an instant of their own, served or not, and takes any connection. `closed`: each connection
    serves its users one after another. Users of the last two take several steps, with pauses.
    """

    model: Literal["stampede", "rate", "closed"] = Field(
        description="the workload model, 'stampede', 'rate' or 'closed'"
    )
    users: int = Field(default=0, ge=1, le=1_000_000, description="users, each of whom buys once")
    steps: tuple[str, ...] = Field(
        default=(), strict=False, description="what a user does, such as 'browse' and 'buy'"
    )
    stages: tuple[str, ...] = Field(
        default=(),
        strict=False,
        description="durations with their rates, such as '10s:2000' or '10s:100..2000'",
    )
    arrivals: Literal["at_once", "uniform", "poisson", "even"] | None = Field(
        default=None,
        description="how first arrivals fall; uniform over spread_ms, poisson within a stage",
    )
    connections: int = Field(ge=1, le=60_000, description="keep-alive connections")
    connect: Literal["warm", "cold"] = Field(
        default="warm", description="all before the barrier, or each when its user is due"
    )
    spread_ms: int = Field(
        default=0, ge=0, le=HOUR_MS, description="first arrivals spread over this"
    )
    think_ms: int = Field(
        default=0, ge=0, le=HOUR_MS, description="a user's pause between two steps"
    )
    think: Literal["fixed", "exponential"] = Field(
        default="fixed", description="think_ms exactly, or on average"
    )
    clicks: int = Field(
        default=1, ge=1, le=100, description="claims of a user at once, each over a connection"
    )
    retry: Retry | None = Field(default=None, description="the table [load.retry]")
    refresh: Refresh | None = Field(default=None, description="the table [load.refresh]")
    seed: int = Field(default=1, ge=0, le=2**63 - 1, description="the seed of the plan")

    @model_validator(mode="after")
    def _model_has_its_fields(self) -> Self:
        self._check_steps()
        if self.model == "rate":
            self._check_stages()
        else:
            self._check_users()
        attempts = self.user_count * self._attempts_each
        if attempts > ATTEMPTS_MAX:
            raise ValueError(
                f"load: {self.user_count:,} users make {attempts:,} attempts, "
                f"expected at most {ATTEMPTS_MAX:,}"
            )
        if self.connect == "cold" and self.model != "stampede":
            raise ValueError("load.connect: cold connections are for model = 'stampede'")
        if self.model == "stampede":
            given = [name for name in _FOR_VISITS if name in self.model_fields_set]
            if given:
                raise ValueError(f"load.{given[0]}: this is for model = 'closed' or 'rate'")
        return self

    @property
    def closed(self) -> bool:
        """Whether a connection serves several users, each waiting for the one before."""
        return self.model == "closed" or self.users > self.connections

    @property
    def open(self) -> bool:
        """Whether arrivals have instants of their own, that the storm can be late for."""
        return self._staged or (self.spread_ms > 0 and not self.closed)

    @property
    def last_arrival_ms(self) -> int | None:
        """When the last user comes, at the latest; None where that hangs on answers, or where all
        come at once."""
        if self._staged:
            return sum(stage.length_us for stage in self.parsed_stages) // 1000
        return self.spread_ms if self.open else None

    @property
    def pattern(self) -> str:
        """How arrivals fall, where the file does not say."""
        return self.arrivals or ("poisson" if self._staged else "uniform")

    @property
    def user_count(self) -> int:
        """How many users come."""
        return sum(stage.arrivals for stage in self.parsed_stages) if self._staged else self.users

    @property
    def is_visited(self) -> bool:
        """Whether users do more than one thing, or not at once."""
        return len(self.steps) > 1 or any(name in self.model_fields_set for name in _FOR_VISITS)

    @property
    def virtual_users(self) -> int:
        """How many users are served at a time."""
        return self.connections if self._staged else self.connections // self.clicks

    @cached_property
    def parsed_stages(self) -> list[Stage]:
        """The stages in their order. Raises ValueError with one line."""
        return list(_stages(self.stages))

    @property
    def _attempts_each(self) -> int:
        """Of one user, at most."""
        refresh, retries = self.refresh or Refresh(), self.retry.times if self.retry else 0
        beside = self.clicks - 1 + refresh.reads + retries * (1 + refresh.between)
        return max(1, len(self.steps)) + beside * max(1, self.steps.count("buy"))

    @property
    def _staged(self) -> bool:
        return self.model == "rate"

    def _check_steps(self) -> None:
        for name in self.steps:
            if name not in STEP_OF:
                raise ValueError(
                    f"load.steps: found {name!r}, expected some of {', '.join(STEP_OF)}"
                )
        if self.model == "stampede" and len(self.steps) > 1:
            raise ValueError(
                f"load.steps: found {len(self.steps)} steps; "
                "several are for model = 'closed' or 'rate'"
            )

    def _check_users(self) -> None:
        if self.stages:
            raise ValueError("load.stages: these are for model = 'rate'")
        if not self.users:
            raise ValueError("load.users: missing, expected users, each of whom buys once")
        if self.virtual_users > self.users:
            clicks = f" times load.clicks ({self.clicks})" * (self.clicks > 1)
            raise ValueError(
                f"load.connections: found {self.connections:,}, "
                f"expected at most load.users ({self.users:,}){clicks}"
            )
        if self.connect == "cold" and self.connections != self.users:
            raise ValueError(
                f"load.connections: found {self.connections:,}, expected load.users "
                f"({self.users:,}): a cold connection is opened for one user"
            )
        if self.connections % self.clicks:
            raise ValueError(
                f"load.connections: found {self.connections:,}, "
                f"expected a multiple of load.clicks ({self.clicks})"
            )
        if self.arrivals == "at_once" and self.spread_ms:
            raise ValueError("load.spread_ms: who comes at once has nothing to spread")
        if self.arrivals not in (None, "at_once") and not self.spread_ms:
            raise ValueError(f"load.arrivals: {self.arrivals!r} needs load.spread_ms")

    def _check_stages(self) -> None:
        if self.users or self.spread_ms:
            raise ValueError("load.users, load.spread_ms: these are not for model = 'rate'")
        if not 1 <= self.user_count <= ARRIVALS_MAX:
            raise ValueError(
                f"load.stages: found {self.user_count:,} arrivals, expected 1 to {ARRIVALS_MAX:,}"
            )


def _stages(texts: Iterable[str]) -> Iterator[Stage]:
    """The stages that are written so. Rounded are the sums so far, of time and of arrivals, so that
    many short stages have as many arrivals as the long one that they make."""
    end_s = arrivals = Fraction(0)
    for text in texts:
        length_s, first, last = _stage(text)
        begin_s, before = end_s, arrivals
        end_s, arrivals = begin_s + length_s, before + length_s * (first + last) / 2
        begin_us = round(begin_s * _S_US)
        length_us = round(end_s * _S_US) - begin_us
        yield Stage(begin_us, length_us, round(arrivals) - round(before), first, last)


def _stage(text: str) -> tuple[Fraction, Fraction, Fraction]:
    """How long, and from which rate to which."""
    match = _STAGE.fullmatch(text)
    if match is None:
        raise ValueError(
            f"load.stages: found {text!r}, expected such as '10s:2000', '500ms:50' or "
            "'10s:100..2000'"
        )
    length, unit, first, last = match.groups()
    return Fraction(length) * _SECONDS[unit], Fraction(first), Fraction(last or first)
