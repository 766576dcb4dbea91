"""`flashsale storm`: the load of a scenario on a running sale, its record and its report."""

from pathlib import Path
from typing import Annotated

import typer

from flashsale.campaign.demands import aborting, only_thresholds, requiring
from flashsale.campaign.stores import (
    DEFAULT_STATE_DIR,
    TOKENS,
    Stores,
    find_base_url,
    find_stores,
    shop_books,
)
from flashsale.campaign.storming import StormRequest, run_storm
from flashsale.cli.options import (
    BaseUrl,
    BooksRedisUrl,
    BooksUrl,
    CacheUrl,
    CaFile,
    CertFile,
    Insecure,
    KeyFile,
    LedgerUrl,
    MySQLUrl,
    StateDir,
    TargetFile,
    tls_of,
)
from flashsale.cli.storm_options import (
    AbortIf,
    Baseline,
    Calibrate,
    Csv,
    FailIf,
    MaxRegress,
    Out,
    Quiet,
    Replay,
    Require,
    ScenarioName,
    ShardOption,
    StartAt,
    Workers,
    chosen,
    doubtful,
    earlier,
    generators,
    required,
)
from flashsale.cli.terminal import TerminalTeller, tell_workflow
from flashsale.errors import UnreachableError, UsageError
from flashsale.storm.attack.stopping import ignore_signals
from flashsale.verify.shop import ShopBooks
from flashsale.verify.stores import connect


def command(
    scenario: ScenarioName = None,
    replay: Replay = None,
    tokens: Annotated[
        Path | None,
        typer.Option(
            help="The users' tokens.",
            show_default=f"{TOKENS} in the state folder",
            rich_help_panel="Workload",
        ),
    ] = None,
    target: TargetFile = None,
    calibrate: Calibrate = True,
    require: Require = None,
    fail_if: FailIf = None,
    abort_if: AbortIf = None,
    baseline: Baseline = None,
    max_regress: MaxRegress = None,
    out: Out = None,
    csv: Csv = False,
    quiet: Quiet = False,
    workers: Workers = 1,
    shard: ShardOption = None,
    start_at: StartAt = None,
    base_url: BaseUrl = None,
    state_dir: StateDir = DEFAULT_STATE_DIR,
    ledger_url: LedgerUrl = None,
    cache_url: CacheUrl = None,
    mysql_url: MySQLUrl = None,
    books_url: BooksUrl = None,
    books_redis_url: BooksRedisUrl = None,
    ca: CaFile = None,
    cert: CertFile = None,
    key: KeyFile = None,
    insecure: Insecure = False,
) -> None:
    """Storm a sale or a storefront with a scenario's load, and record every attempt.

    Every connection is up before the first claim leaves. Latency runs from the instant that the
    plan gives a claim, not from its send. Works on any server of the family: give --base-url and
    --tokens; and on any other shop that a file describes: give --target, too.
    """
    planned, plan = chosen(scenario, replay, target)
    loaded = requiring(planned, only_thresholds(required(require, fail_if)))
    who = generators(loaded, workers, shard, start_at)
    if who.shard is not None and baseline is not None:
        raise UsageError(
            "--baseline: a shard is a part; merge all, then `flashsale report BASELINE MERGED`"
        )
    teller = TerminalTeller("storm", quiet)
    for doubt in doubtful(loaded.thresholds[len(planned.thresholds) :]):
        teller.say(doubt)
    where = find_base_url(state_dir, base_url)
    stores: Stores | ShopBooks | None
    if loaded.books is not None:
        stores = shop_books(loaded.books, where, books_url, books_redis_url)
    elif loaded.target.is_own:
        stores = None  # a stack that runs here is another's
    else:
        stores = _stores_if_known(state_dir, ledger_url, cache_url, mysql_url)
        if stores is not None and (ledger_url or mysql_url):
            _greet(stores)
    request = StormRequest(
        scenario=loaded,
        plan=plan,
        base_url=where,
        tokens=tokens or state_dir / TOKENS,
        stores=stores,
        state_dir=state_dir,
        out=out,
        processes=who.processes,
        shard=who.shard,
        start_at_us=who.start_at_us,
        calibrate=calibrate,
        aborts=aborting(loaded, abort_if or ()),
        baseline=earlier(loaded, baseline, max_regress),
        csv=csv,
        tls=tls_of(ca, cert, key, insecure),
    )
    run = run_storm(request, teller)
    if run.summary.load.interrupted_by is not None:
        ignore_signals()  # all is written; an impatient user gets the exit code
    tell_workflow(run.summary)
    raise typer.Exit(run.summary.exit_code)


def _stores_if_known(
    state_dir: Path, ledger_url: str | None, cache_url: str | None, mysql_url: str | None
) -> Stores | None:
    """None where no stack runs and the two that tell a run's truth are not named."""
    try:
        return find_stores(state_dir, ledger_url, cache_url or ledger_url, mysql_url)
    except UnreachableError:
        return None


def _greet(stores: Stores) -> None:
    """See that the stores that somebody named are there, before a storm that needs them to tell."""
    with connect(stores.ledger_url, stores.mysql_url):
        pass
