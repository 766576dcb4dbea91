"""A scenario: what is sold or read, the load to put on it and what to demand of it (TOML)."""

import re
import tomllib
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from flashsale.errors import UsageError
from flashsale.model import ID_MAX, Outcome
from flashsale.resources import resource
from flashsale.storm.answer import REJECTIONS
from flashsale.storm.thresholds import DEFAULTS, Threshold, parse_threshold

_HOUR_MS = 3_600_000
ARRIVALS_MAX = 5_000_000
_STAGE = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m):([0-9]+(?:\.[0-9]+)?)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0}
_Milliseconds = Annotated[int, Field(ge=1, le=_HOUR_MS)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Sale(_Part):
    """The vouchers on sale. `rehearse` seeds them, the storm asks for them."""

    vouchers: int = Field(default=1, ge=1, le=10_000, description="how many vouchers")
    first_voucher: int = Field(
        default=1, ge=1, le=ID_MAX - 10_000, description="the lowest voucher id"
    )
    units: int = Field(ge=0, le=2**31 - 1, description="units of stock over all vouchers")

    @property
    def voucher_ids(self) -> range:
        """The ids on sale, ascending and without a gap."""
        return range(self.first_voucher, self.first_voucher + self.vouchers)

    def units_by_voucher(self) -> dict[int, int]:
        """The stock of each voucher: spread evenly, the first ones take the remainder."""
        each, rest = divmod(self.units, self.vouchers)
        return {voucher: each + (j < rest) for j, voucher in enumerate(self.voucher_ids)}


class Browse(_Part):
    """Which shops are read: each as likely as any other, and a share of ids that do not exist."""

    shops: int = Field(ge=1, le=1_000_000, description="how many shops are read")
    first_shop: int = Field(default=1, ge=1, le=2**31, description="the lowest shop id")
    unknown_share: float = Field(
        default=0.0, ge=0, le=1, strict=False, description="reads of ids that do not exist"
    )

    @property
    def shop_ids(self) -> range:
        """The ids that are read and exist."""
        return range(self.first_shop, self.first_shop + self.shops)


class Stage(NamedTuple):
    """So many arrivals a second, for so long."""

    duration_s: float
    rate_per_s: float

    @property
    def arrivals(self) -> int:
        """How many come."""
        return round(self.duration_s * self.rate_per_s)


class Load(_Part):
    """Who comes, when, and over how many connections."""

    model: Literal["stampede", "rate"] = Field(
        description="the workload model, 'stampede' or 'rate'"
    )
    users: int = Field(default=0, ge=1, le=1_000_000, description="users, each of whom buys once")
    stages: tuple[str, ...] = Field(
        default=(), strict=False, description="durations with their rates, such as '10s:2000'"
    )
    arrivals: Literal["poisson", "even"] = "poisson"
    connections: int = Field(ge=1, le=60_000, description="keep-alive connections")
    spread_ms: int = Field(
        default=0, ge=0, le=_HOUR_MS, description="first arrivals spread over this"
    )
    seed: int = Field(default=1, ge=0, le=2**63 - 1, description="the seed of the plan")

    @model_validator(mode="after")
    def _model_has_its_fields(self) -> Self:
        if self.model == "rate":
            self._check_stages()
            return self
        if self.stages:
            raise ValueError("load.stages: these are for model = 'rate'")
        if not self.users:
            raise ValueError("load.users: missing, expected users, each of whom buys once")
        if self.connections > self.users:
            raise ValueError(
                f"load.connections: found {self.connections:,}, "
                f"expected at most load.users ({self.users:,})"
            )
        return self

    @property
    def closed(self) -> bool:
        """Whether a connection serves several users, each waiting for the one before."""
        return self.users > self.connections

    @property
    def open(self) -> bool:
        """Whether arrivals have instants of their own, that the storm can be late for."""
        return self.model == "rate" or (self.spread_ms > 0 and not self.closed)

    @property
    def parsed_stages(self) -> list[Stage]:
        """The stages in their order. Raises ValueError with one line."""
        return [_stage(text) for text in self.stages]

    def _check_stages(self) -> None:
        if self.users or self.spread_ms:
            raise ValueError("load.users, load.spread_ms: these are for model = 'stampede'")
        arrivals = sum(stage.arrivals for stage in self.parsed_stages)
        if not 1 <= arrivals <= ARRIVALS_MAX:
            raise ValueError(
                f"load.stages: found {arrivals:,} arrivals, expected 1 to {ARRIVALS_MAX:,}"
            )


class Prepare(_Part):
    """What `rehearse` sees to before a storm of reads."""

    seeded_shops: int = Field(default=0, ge=0, le=1_000_000, description="shops that exist")
    hot_shops: int | None = Field(default=None, ge=0, le=10_000, description="shops kept warm")
    entries: Literal["as_warmed", "absent", "expired"] = Field(
        default="as_warmed", description="the entries of the shops that are read"
    )
    load_delay_ms: int = Field(default=0, ge=0, le=4_000, description="what a load is slowed by")


class Timeouts(_Part):
    """The bound of every phase."""

    connect_ms: _Milliseconds = Field(
        default=5_000, description="one attempt's wait for a connection"
    )
    barrier_ms: _Milliseconds = Field(
        default=30_000, description="all connections up, else no storm"
    )
    request_ms: _Milliseconds = Field(default=10_000, description="one answer; then indeterminate")
    drain_ms: _Milliseconds = Field(
        default=15_000, description="answers still out after the last send"
    )
    run_ms: _Milliseconds = Field(
        default=600_000, description="barrier to end, whatever is still open"
    )
    claim_ms: _Milliseconds = Field(
        default=5_000, description="a claim sent longer ago cannot sell"
    )
    resolve_ms: _Milliseconds = Field(
        default=30_000, description="asking after indeterminate claims"
    )


def _stage(text: str) -> Stage:
    match = _STAGE.fullmatch(text)
    if match is None:
        raise ValueError(f"load.stages: found {text!r}, expected such as '10s:2000' or '500ms:50'")
    return Stage(float(match[1]) * _SECONDS[match[2]], float(match[3]))


class Scenario(_Part):
    """One load test, checked. Two equal scenarios give equal plans for equal users."""

    schema_version: Literal[1] = Field(alias="schema", description="the version of this format, 1")
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$", description="the scenario's name")
    question: str = ""
    sale: Sale | None = Field(default=None, description="the table [sale]")
    browse: Browse | None = Field(default=None, description="the table [browse]")
    prepare: Prepare | None = Field(default=None, description="the table [prepare]")
    load: Load = Field(description="the table [load]")
    timeouts: Timeouts = Timeouts()
    thresholds: tuple[Threshold, ...] = Field(default_factory=dict, validate_default=True)
    messages: dict[str, Annotated[Outcome, Field(strict=False)]] = {}

    @property
    def endpoint(self) -> str:
        """What is asked for: `buy` or `browse`."""
        return "buy" if self.browse is None else "browse"

    @model_validator(mode="after")
    def _asks_for_one_thing(self) -> Self:
        if self.sale is None and self.browse is None:
            raise ValueError(
                "sale: missing, expected the table [sale], or [browse] to read shops alone"
            )
        if self.sale is not None and self.browse is not None:
            raise ValueError("browse: a scenario with a [sale] cannot have a [browse], too")
        if self.sale is not None and self.prepare is not None:
            raise ValueError("prepare: this is for a scenario with a [browse]")
        if self.sale is not None and self.load.model != "stampede":
            raise ValueError(f"load.model: {self.load.model!r} is for a scenario with a [browse]")
        for threshold in self.thresholds:
            if threshold.metric.endpoint not in ("", self.endpoint):
                raise ValueError(
                    f"thresholds: {threshold.name!r} has no samples in a scenario "
                    f"that asks for {self.endpoint!r} alone"
                )
        return self

    @field_validator("messages")
    @classmethod
    def _messages_are_rejections(cls, messages: dict[str, Outcome]) -> dict[str, Outcome]:
        for message, outcome in messages.items():
            if outcome not in REJECTIONS:
                raise ValueError(
                    f'messages."{message}": found {outcome.value!r}, '
                    f"expected one of {', '.join(REJECTIONS)}"
                )
        return messages

    @field_validator("thresholds", mode="before")
    @classmethod
    def _parse_thresholds(cls, table: object) -> object:
        if not isinstance(table, Mapping):
            raise ValueError('thresholds: expected a table such as "buy.response.p99" = "< 500ms"')
        unsaid = {name: text for name, text in DEFAULTS.items() if name not in table}
        return tuple(parse_threshold(*demand) for demand in {**table, **unsaid}.items())


def load_scenario(name: str) -> Scenario:
    """The scenario in the file `name`, or the built-in one called so.

    Raises UsageError: one line with the field, what was found and what was expected.
    """
    path = Path(name)
    if path.suffix != ".toml" and "/" not in name:
        path = _built_in(name)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise UsageError(f"scenario {path}: {reason}") from error
    return parse_scenario(text, str(path))


def parse_scenario(text: str, source: str) -> Scenario:
    """The scenario written in `text`; `source` names it in errors (UsageError)."""
    try:
        document = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, deep nesting
        raise UsageError(f"{source} is not TOML: {error}") from error
    if "question" not in document:
        document["question"] = _first_comment(text)
    try:
        return Scenario.model_validate(document)
    except ValidationError as error:
        raise UsageError(f"{source}: {_one_line(error)}") from error


def built_in_names() -> list[str]:
    """The names of the scenarios that ship with flashsale."""
    return sorted(path.stem for path in resource("scenarios").glob("*.toml"))


def _built_in(name: str) -> Path:
    names = built_in_names()
    if name not in names:
        raise UsageError(
            f"no scenario {name!r}{_suggestion(name, names)}; built in: {', '.join(names)}; "
            "or give the path of a .toml file"
        )
    return resource("scenarios") / f"{name}.toml"


def _first_comment(text: str) -> str:
    first = text.lstrip().partition("\n")[0]
    return first.lstrip("# ").rstrip() if first.startswith("#") else ""


def _one_line(error: ValidationError) -> str:
    """The first error, a misspelt key before whatever follows from it."""
    details = sorted(error.errors(), key=lambda detail: detail["type"] != "extra_forbidden")
    more = f" (and {len(details) - 1} more)" if len(details) > 1 else ""
    return _sentence(details[0]) + more


def _sentence(detail: ErrorDetails) -> str:
    if detail["type"] == "value_error":
        return str(detail["ctx"]["error"])
    path, kind = ".".join(str(part) for part in detail["loc"]), detail["type"]
    table, key = detail["loc"][:-1], str(detail["loc"][-1])
    if kind == "extra_forbidden":
        known = list(_fields_of(table))
        return f"{path}: no such key{_suggestion(key, known)}; expected one of {', '.join(known)}"
    if kind == "missing":
        return f"{path}: missing, expected {_fields_of(table)[key].description}"
    return f"{path}: found {_shown(detail['input'])}, expected {_expected(detail)}"


def _expected(detail: ErrorDetails) -> str:
    match detail["type"]:
        case "int_type" | "int_from_float":
            return "a whole number"
        case "greater_than_equal":
            return f"at least {detail['ctx']['ge']:,}"
        case "less_than_equal":
            return f"at most {detail['ctx']['le']:,}"
        case "string_pattern_mismatch":
            return "lower-case letters, digits, '-' and '_'"
        case "model_type" | "dict_type":
            return "a table"
        case _:
            return detail["msg"].removeprefix("Input should be ")


def _shown(value: Any) -> str:
    return "a table" if isinstance(value, dict) else repr(value)


def _fields_of(table: tuple[int | str, ...]) -> dict[str, FieldInfo]:
    """The fields of the table at this path, by the key under which a file gives them."""
    model: type[BaseModel] = Scenario
    for part in table:
        annotation = model.model_fields[str(part)].annotation
        annotation = next(iter(get_args(annotation)), annotation)  # of an optional table
        assert isinstance(annotation, type)
        model = annotation
    return {field.alias or name: field for name, field in model.model_fields.items()}


def _suggestion(name: str, known: list[str]) -> str:
    close = get_close_matches(name, known, n=1)
    return f", did you mean {close[0]!r}?" if close else ""
