"""A scenario: what is sold or read, the load to put on it and what to demand of it (TOML)."""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import orjson
from pydantic import Field, ValidationError, field_validator, model_validator

from flashsale.books import Books
from flashsale.errors import UsageError
from flashsale.files import resource
from flashsale.model import ID_MAX, Outcome
from flashsale.scenario.answer import REJECTIONS
from flashsale.scenario.fault import PlannedFault
from flashsale.scenario.load import HOUR_MS, STEP_OF, Load, Step
from flashsale.scenario.shop import Shop
from flashsale.scenario.table import (
    NO_TEXTS,
    Table,
    Texts,
    not_toml,
    on_preset,
    one_line,
    read_document,
    shop_document,
    shown,
    suggestion,
    texts_of,
    unquoted,
)
from flashsale.scenario.thresholds import DEFAULTS, Threshold, parse_threshold

_Milliseconds = Annotated[int, Field(ge=1, le=HOUR_MS)]


class Sale(Table):
    """The vouchers on sale. `rehearse` seeds them, the storm asks for them."""

    vouchers: int = Field(default=1, ge=1, le=10_000, description="how many vouchers")
    first_voucher: int = Field(
        default=1, ge=1, le=ID_MAX - 10_000, description="the lowest voucher id"
    )
    units: int = Field(ge=0, le=2**31 - 1, description="units of stock over all vouchers")
    quantity: int = Field(default=1, ge=1, le=10_000, description="units that a claim asks for")
    limit: int = Field(
        default=1, ge=1, le=1_000_000, description="orders of a voucher that a user may hold"
    )

    @property
    def voucher_ids(self) -> range:
        """The ids on sale, ascending and without a gap."""
        return range(self.first_voucher, self.first_voucher + self.vouchers)

    def units_by_voucher(self) -> dict[int, int]:
        """The stock of each voucher: spread evenly, the first ones take the remainder."""
        each, rest = divmod(self.units, self.vouchers)
        return {voucher: each + (j < rest) for j, voucher in enumerate(self.voucher_ids)}


class Browse(Table):
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


class Prepare(Table):
    """What `rehearse` sees to before a storm: of what is read, and of how claims are taken."""

    seeded_shops: int = Field(default=0, ge=0, le=1_000_000, description="shops that exist")
    hot_shops: int | None = Field(default=None, ge=0, le=10_000, description="shops kept warm")
    entries: Literal["as_warmed", "absent", "expired"] = Field(
        default="as_warmed", description="the entries of the shops that are read"
    )
    load_delay_ms: int = Field(default=0, ge=0, le=4_000, description="what a load is slowed by")
    claims_per_call: int | None = Field(
        default=None,
        ge=1,
        le=2_000,
        description="claims that a replica sends to the ledger at once",
    )


class Timeouts(Table):
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


class Scenario(Table):
    """One load test, checked. Two equal scenarios give equal plans for equal users."""

    schema_version: Literal[1] = Field(alias="schema", description="the version of this format, 1")
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$", description="the scenario's name")
    question: str = Field(default="", description="what it asks; else the file's first comment")
    sale: Sale | None = Field(default=None, description="the table [sale]")
    browse: Browse | None = Field(default=None, description="the table [browse]")
    prepare: Prepare | None = Field(default=None, description="the table [prepare]")
    load: Load = Field(description="the table [load]")
    target: Shop = Field(default=Shop(), description="the table [target]")
    books: Books | None = Field(default=None, description="the table [books]")
    timeouts: Timeouts = Field(default=Timeouts(), description="the table [timeouts]")
    fault: tuple[PlannedFault, ...] = Field(
        default=(), strict=False, max_length=32, description="the tables [[fault]]"
    )
    thresholds: tuple[Threshold, ...] = Field(
        default_factory=dict, validate_default=True, description='"metric" = "condition"'
    )
    messages: dict[str, Annotated[Outcome, Field(strict=False)]] = Field(
        default_factory=dict, description='"message of a rejection" = "outcome"'
    )

    @property
    def steps(self) -> tuple[Step, ...]:
        """What each user does, in this order."""
        if self.load.steps:
            return tuple(STEP_OF[name] for name in self.load.steps)
        return (Step.BUY,) if self.sale is not None else (Step.BROWSE,)

    @property
    def asks(self) -> set[Step]:
        """What is asked for: the steps, and the reads beside a claim."""
        return {*self.steps, *([Step.BROWSE] if self.load.refresh else [])}

    @property
    def endpoints(self) -> list[str]:
        """The names of what is asked for: some of `buy`, `browse` and `sign`."""
        return [step.endpoint for step in Step if step in self.asks]

    @property
    def needs_users(self) -> bool:
        """Whether a step is taken that only a user with a session can take."""
        return any(step.needs_user for step in self.steps)

    @model_validator(mode="after")
    def _tables_fit_the_steps(self) -> Self:
        if self.sale is None and self.browse is None and set(self.steps) != {Step.SIGN}:
            raise ValueError(
                "sale: missing, expected the table [sale], or [browse] to read shops alone"
            )
        if self.sale and self.browse and not (self.load.steps or self.load.refresh):
            raise ValueError(
                "load.steps: missing, expected what a user does with [sale] and [browse], "
                'such as ["browse", "buy"]'
            )
        beside = self.load.clicks > 1 or self.load.retry or self.load.refresh
        if beside and Step.BUY not in self.steps:
            raise ValueError("load.clicks, retry, refresh: these are for a scenario that buys")
        for step, table in ((Step.BUY, self.sale), (Step.BROWSE, self.browse)):
            name = "sale" if step is Step.BUY else "browse"
            if step in self.asks and table is None:
                raise ValueError(f"{name}: missing, expected the table [{name}] for its step")
            if step not in self.asks and table is not None:
                raise ValueError(f"{name}: no step of load.steps needs this table")
        if trouble := self.target.missing(self.steps):
            raise ValueError(trouble)
        if self.prepare is not None:
            of_claims = self.prepare.claims_per_call is not None
            if of_claims and self.sale is None:
                raise ValueError("prepare.claims_per_call: this is for a scenario with a [sale]")
            if self.browse is None and self.prepare.model_fields_set != {"claims_per_call"}:
                raise ValueError("prepare: this is for a scenario with a [browse]")
        if self.sale is not None and (trouble := self._unnamed(self.sale)):
            raise ValueError(trouble)
        return self

    def _unnamed(self, sale: Sale) -> str:
        """What vouchers lack a name of, in a shop that has its own; empty where nothing."""
        named, last = len(self.target.vouchers), sale.voucher_ids[-1]
        if named and last > named:
            return (
                f"target.vouchers: names vouchers 1 to {named:,}, and the sale has "
                f"{sale.first_voucher:,} to {last:,}; name them all, or see to sale.vouchers and "
                "sale.first_voucher"
            )
        if self.books is None:
            return ""
        return self.books.trouble(sale.vouchers, sale.quantity > 1 or sale.limit > 1)

    @model_validator(mode="after")
    def _faults_come_in_time(self) -> Self:
        last_s = self.last_s
        for fault in self.fault:
            if fault.at_s > last_s:
                raise ValueError(
                    f"fault.at: found {fault.at!r}, expected at most {last_s:g}s: by then the "
                    "storm has sent its last"
                )
            if fault.what == "delete" and self.sale is None:
                raise ValueError("fault.what: 'delete' is for a scenario with a [sale]")
        return self

    @property
    def last_s(self) -> float:
        """When the storm begins nothing new any more, in seconds after its barrier: as planned,
        else its deadline."""
        planned_ms = self.load.last_arrival_ms
        return (self.timeouts.run_ms if planned_ms is None else planned_ms) / 1000

    @model_validator(mode="after")
    def _thresholds_have_samples(self) -> Self:
        for threshold in self.thresholds:
            if trouble := self.no_samples(threshold):
                raise ValueError(f"thresholds: {trouble}")
        return self

    def no_samples(self, threshold: Threshold) -> str:
        """Why nothing in this scenario can be judged by `threshold`; empty where something can."""
        stages = len(self.load.parsed_stages)
        for figure in threshold.figures:
            if figure.stage > stages:
                return f"{figure.name!r}: load.stages has {stages} stages"
            if figure.metric.endpoint not in ("", *self.endpoints):
                asked = " and ".join(map(repr, self.endpoints))
                return f"{figure.name!r} has no samples in a scenario that asks for {asked} alone"
        return ""

    @field_validator("schema_version", mode="before")
    @classmethod
    def _schema_is_a_number(cls, version: object) -> object:
        if isinstance(version, bool):  # equal to 1, and none
            raise ValueError(f"schema: found {version}, expected 1")
        return version

    @field_validator("messages", mode="before")
    @classmethod
    def _messages_are_rejections(cls, messages: object) -> object:
        if not isinstance(messages, Mapping):
            raise ValueError('messages: expected a table such as "Too late" = "sold_out"')
        for message, outcome in messages.items():
            if isinstance(outcome, dict):
                raise ValueError(unquoted("messages", message, outcome))
            if not isinstance(outcome, str) or outcome not in REJECTIONS:
                is_misspelt = isinstance(outcome, str) and outcome not in set(Outcome)
                close = suggestion(str(outcome), list(map(str, REJECTIONS))) if is_misspelt else ""
                raise ValueError(
                    f'messages."{message}": found {shown(outcome)}{close}, '
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


def load_scenario(name: str, target: str | None = None) -> Scenario:
    """The scenario in the file `name`, or the built-in one called so, for the shop that the file
    `target` (or the preset called so) describes.

    Raises UsageError: one line with the field, what was found and what was expected.
    """
    path = Path(name)
    if path.suffix != ".toml" and "/" not in name:
        path = _built_in(name)
    text = read_document(path, "scenario")
    shop = None if target is None else shop_document(target)
    return parse_scenario(text, str(path), shop, texts_of(target))


def books_of(target: str) -> Books | None:
    """The books in the file of a shop, or in the preset called so. Raises UsageError."""
    document = {"books": shop_document(target).get("books")}
    try:
        return _OnlyBooks.model_validate(document).books
    except ValidationError as error:
        raise UsageError(one_line(error, _OnlyBooks, target, texts_of(target))) from error


class _OnlyBooks(Table):
    books: Books | None = Field(default=None, description="the table [books]")


def parse_scenario(
    text: str, source: str, shop: dict[str, Any] | None = None, shop_texts: Texts = NO_TEXTS
) -> Scenario:
    """The scenario written in `text`, for the shop of these tables in place of its own; `source`
    names it in errors (UsageError), and what was written in `shop_texts` that of the shop."""
    text = text.removeprefix("\ufeff")
    try:
        document = tomllib.loads(text)
    except RecursionError:
        raise UsageError(f"{source} is no scenario: it nests too deep") from None
    except ValueError as error:  # a number of thousands of digits is one, too
        raise UsageError(not_toml(source, error, text)) from error
    if "question" not in document:
        document["question"] = _first_comment(text)
    return parse_document({**document, **(shop or {})}, source, {**shop_texts, source: text})


def parse_document(document: dict[str, Any], source: str, texts: Texts = NO_TEXTS) -> Scenario:
    """The scenario that these tables make. In errors (UsageError) `source` names them, or the line
    of the texts in which they were written."""
    document = on_preset(document, source, texts)
    try:
        return Scenario.model_validate(document)
    except ValidationError as error:
        raise UsageError(one_line(error, Scenario, source, texts)) from error


def built_in_names() -> list[str]:
    """The names of the scenarios that ship with flashsale."""
    return sorted(path.stem for path in resource("scenarios").glob("*.toml"))


def _built_in(name: str) -> Path:
    names = built_in_names()
    if name not in names:
        raise UsageError(
            f"no scenario {name!r}{suggestion(name, names)}; built in: {', '.join(names)}; "
            "or give the path of a .toml file"
        )
    return resource("scenarios") / f"{name}.toml"


def _first_comment(text: str) -> str:
    first = text.lstrip().partition("\n")[0]
    return first.lstrip("# ").rstrip() if first.startswith("#") else ""


# scenario.json, the scenario as a storm was given it ----------------------------------------------


def scenario_document(scenario: Scenario) -> bytes:
    """The scenario with all that was demanded of it, on the command line, too."""
    document = scenario.model_dump(
        mode="json", by_alias=True, exclude_unset=True, exclude={"thresholds"}
    )
    demands = [[threshold.name, threshold.condition] for threshold in scenario.thresholds]
    return orjson.dumps({"scenario": document, "thresholds": demands}) + b"\n"


def scenario_of(document: bytes) -> Scenario:
    """The scenario that was written so. Raises ValueError where it is none."""
    found: Any = orjson.loads(document)
    try:
        scenario = Scenario.model_validate_json(orjson.dumps(found["scenario"]))
        demands = tuple(parse_threshold(name, text) for name, text in found["thresholds"])
    except (KeyError, TypeError, RecursionError) as error:
        raise ValueError("not a scenario") from error
    return scenario.model_copy(update={"thresholds": demands})
