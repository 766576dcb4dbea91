"""Many trials of one scenario, a line each: `flashsale chaos`, with faults from seeds and controls
that must fail; and `flashsale capacity`, for the highest rate at which it holds."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table

from flashsale import telemetry
from flashsale.campaign.campaign import DEFAULT_STATE_DIR, TOKENS, Teller, shop_books
from flashsale.campaign.capacity import RATE_MAX, RATE_MIN, CapacityRequest, peak_of, run_capacity
from flashsale.campaign.chaos import Chaos, ChaosRequest, run_chaos, run_controls
from flashsale.campaign.judging import exercising, only_thresholds, requiring
from flashsale.campaign.rehearsal import form_of
from flashsale.campaign.storming import StormRequest
from flashsale.cli.options import (
    BaseUrl,
    BooksRedisUrl,
    BooksUrl,
    CaFile,
    CertFile,
    Insecure,
    KeyFile,
    TargetFile,
    tls_of,
)
from flashsale.cli.storm_options import Require, Tokens, Workers, chosen, generators, required
from flashsale.cli.terminal import console, tell, tell_step
from flashsale.errors import UsageError
from flashsale.faults.controls import controls_named
from flashsale.faults.seeds import Asked, markdown, table
from flashsale.run.folder import folder_of_runs
from flashsale.scenario.scenario import load_scenario
from flashsale.stack.settings import ExternalStores, stack_settings

_SEEDS = 10
Kinds = Annotated[
    list[str] | None,
    typer.Option("--fault", metavar="WHAT", help="Draw from this kind alone; may be repeated."),
]
Controls = Annotated[
    list[str] | None,
    typer.Option(
        "--control",
        metavar="NAME",
        help="Plant this defect instead, which has to be found; `all` plants each.",
    ),
]


def chaos(
    scenario: Annotated[
        str, typer.Argument(help="A scenario whose storm lasts, or the path of a .toml.")
    ] = "chaos",
    seeds: Annotated[
        int | None,
        typer.Option(min=1, max=1_000_000, help="How many.", show_default=str(_SEEDS)),
    ] = None,
    first: Annotated[
        str, typer.Option("--from", metavar="SEED", help="The first; `today` makes it of the date.")
    ] = "1",
    minutes: Annotated[
        float | None, typer.Option(min=0.1, help="Begin no more seeds after so long.")
    ] = None,
    fault: Kinds = None,
    at_once: Annotated[
        int | None,
        typer.Option(min=1, max=4, help="So many faults in each seed.", show_default="one or two"),
    ] = None,
    only: Annotated[
        int | None,
        typer.Option(min=1, max=4, help="Of a seed's faults this one alone.", show_default="all"),
    ] = None,
    recover: Annotated[
        float, typer.Option(min=0.1, help="Seconds from healing to selling again.")
    ] = 10.0,
    cluster: Annotated[
        bool,
        typer.Option("--cluster", help="With the ledger on a Redis Cluster that is replicated."),
    ] = False,
    ha: Annotated[
        bool, typer.Option("--ha", help="With a ledger that is replicated behind Sentinels.")
    ] = False,
    control: Controls = None,
    out: Annotated[
        Path | None,
        typer.Option(help="A new folder for every run.", show_default="runs/chaos-…"),
    ] = None,
) -> None:
    """Break a stack on purpose, from seeds: two faults at once, heal, drain, verify.

    Each seed is a rehearsal on a fresh private stack. A seed that fails is tried with fewer faults,
    and the command that repeats it is printed.
    """
    loaded = load_scenario(scenario)
    settings = stack_settings(ExternalStores(), cluster=cluster or None, ha=ha or None)
    asked = Asked.of(fault or (), at_once, form_of(settings))
    folder = folder_of_runs(out, "chaos")
    request = ChaosRequest(
        scenario=loaded,
        name=scenario,
        out=folder.resolve(),
        seeds=seeds or (None if minutes else _SEEDS),
        first=parse_first(first, datetime.now(UTC)),
        minutes=minutes,
        asked=asked,
        only_fault=only,
        recover_s=recover,
    )
    telemetry.silence()  # what a rebuild says is told as its fault's end
    if control:
        raise typer.Exit(run_controls(request, dict(controls_named(control)), tell))
    found = run_chaos(request, _Lines())
    _show_chaos(found)
    tell_step(markdown(f"flashsale chaos {request.name}", found.trials, found.lines))
    tell(f"every run is in {folder}")
    raise typer.Exit(found.exit_code)


def parse_first(text: str, now: datetime) -> int:
    """The first seed; of `today` the date, UTC, with room for ten thousand. Raises UsageError."""
    if text == "today":
        return int(f"{now:%Y%m%d}0000")
    if not (text.isascii() and text.isdigit() and len(text) <= 18):
        raise UsageError(f"--from: found {text!r}, expected a number, or 'today'")
    return int(text)


def chaos_table(chaos: Chaos) -> Table:
    """The table; where a terminal is narrow the faults' names and the rules are folded, not the
    figures and their heads."""
    head, rows = table(chaos.trials)
    found = Table(box=SIMPLE_HEAD, header_style="dim", padding=(0, 1, 0, 0), pad_edge=False)
    for name in head:
        folds = name in (head[0], head[-1])
        found.add_column(
            name,
            overflow="fold",
            no_wrap=not folds,
            min_width=len(name),
            justify="left" if folds else "right",
        )
    for row in rows:
        found.add_row(*row)
    return found


def _show_chaos(chaos: Chaos) -> None:
    console().print(chaos_table(chaos))
    for line in chaos.lines:
        tell(line)


# Capacity ----------------------------------------------------------------------------------------


def capacity(
    scenario: Annotated[
        str, typer.Argument(help="A scenario of model 'rate', or the path of a .toml.")
    ],
    begin: Annotated[
        float | None,
        typer.Option(
            "--from",
            metavar="RATE",
            min=RATE_MIN,
            max=RATE_MAX,
            help="The first rate tried.",
            show_default="the scenario's highest",
        ),
    ] = None,
    most: Annotated[
        float,
        typer.Option(metavar="RATE", min=RATE_MIN, max=RATE_MAX, help="No rate above is tried."),
    ] = RATE_MAX,
    precision: Annotated[
        float, typer.Option(min=1, max=100, help="How far apart the two rates may be, in per cent.")
    ] = 10.0,
    repeats: Annotated[
        int,
        typer.Option(min=1, max=99, help="Trials of a rate, of which more than half must hold."),
    ] = 3,
    require: Require = None,
    workers: Workers = 1,
    target: TargetFile = None,
    base_url: BaseUrl = None,
    tokens: Tokens = None,
    rest: Annotated[
        float,
        typer.Option(
            metavar="SECONDS",
            min=0,
            max=3600,
            help="Between two storms on a shop that runs.",
            rich_help_panel="System",
        ),
    ] = 1.0,
    books_url: BooksUrl = None,
    books_redis_url: BooksRedisUrl = None,
    ca: CaFile = None,
    cert: CertFile = None,
    key: KeyFile = None,
    insecure: Insecure = False,
    out: Annotated[
        Path | None,
        typer.Option(help="A new folder for every run.", show_default="runs/capacity-…"),
    ] = None,
) -> None:
    """Find the highest rate at which thresholds, generator and judge all hold.

    Each trial is a rehearsal on a fresh private stack, its stages scaled; with --base-url a storm
    on the shop that answers there, each by users who have not come yet, judged where it keeps
    [books]. Rates are doubled or halved until one holds and one does not, then bisected.
    """
    planned, _ = chosen(scenario, None, target)
    if base_url is None and (planned.target.is_own or planned.books is not None or tokens):
        raise UsageError("give --base-url: without it, capacity is of a stack that it starts")
    peak_of(planned)
    demanded = required(require, None)
    if planned.sale is None:
        only_thresholds(demanded)
    thresholds, exercised = exercising(demanded)
    loaded = requiring(planned, thresholds)
    shop = None
    if base_url is not None:
        kept = loaded.books
        shop = StormRequest(
            loaded,
            base_url=base_url.rstrip("/"),
            tokens=tokens or DEFAULT_STATE_DIR / TOKENS,
            stores=None if kept is None else shop_books(kept, base_url, books_url, books_redis_url),
            processes=generators(loaded, workers).processes,
            tls=tls_of(ca, cert, key, insecure),
        )
    folder = folder_of_runs(out, "capacity")
    request = CapacityRequest(
        scenario=loaded,
        name=scenario,
        out=folder.resolve(),
        begin_per_s=begin,
        most_per_s=most,
        precision=precision / 100,
        repeats=repeats,
        exercised=exercised,
        processes=generators(loaded, workers).processes,
        shop=shop,
        rest_s=rest,
    )
    found, code = run_capacity(request, _Lines())
    tell(found.told)
    tell(f"every run is in {folder}, the table in {folder / 'capacity.md'}")
    raise typer.Exit(code)


class _Lines(Teller):
    """A line a trial."""

    def say(self, line: str) -> None:
        tell(line)
