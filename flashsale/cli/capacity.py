"""`flashsale capacity`: the highest rate at which a scenario holds, and its interval."""

from pathlib import Path
from typing import Annotated

import typer

from flashsale.campaign.capacity import RATE_MAX, RATE_MIN, CapacityRequest, peak_of, run_capacity
from flashsale.campaign.demands import exercising, only_thresholds, requiring
from flashsale.campaign.stores import DEFAULT_STATE_DIR, TOKENS, shop_books
from flashsale.campaign.storming import StormRequest
from flashsale.campaign.teller import Teller
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
from flashsale.cli.storm import Tokens
from flashsale.cli.storm_options import Require, Workers, chosen, generators, required
from flashsale.cli.terminal import tell
from flashsale.errors import UsageError
from flashsale.run.folder import folder_of_runs


def command(
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
    found, code = run_capacity(request, _Plain())
    tell(found.told)
    tell(f"every run is in {folder}, the table in {folder / 'capacity.md'}")
    raise typer.Exit(code)


class _Plain(Teller):
    """A line a trial."""

    def say(self, line: str) -> None:
        tell(line)
