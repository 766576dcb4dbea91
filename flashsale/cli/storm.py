"""`flashsale storm`: the load of a scenario on a running sale, its record and its report."""

from pathlib import Path
from typing import Annotated

import typer

from flashsale.cli.judging import (
    AbortIf,
    Baseline,
    Csv,
    FailIf,
    MaxRegress,
    aborting,
    demanding,
    rival,
)
from flashsale.cli.options import (
    DEFAULT_STATE_DIR,
    BaseUrl,
    CacheUrl,
    LedgerUrl,
    MySQLUrl,
    StateDir,
    Stores,
    find_base_url,
    find_stores,
)
from flashsale.cli.processes import Calibrate, ShardOption, StartAt, Workers, crowd
from flashsale.cli.replay import Replay, ScenarioName, chosen
from flashsale.cli.workflow import tell_workflow
from flashsale.errors import UnreachableError, UsageError

TOKENS = "tokens.csv"


def command(
    scenario: ScenarioName = None,
    tokens: Annotated[
        Path | None,
        typer.Option(help="The users' tokens.", show_default=f"{TOKENS} in the state folder"),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="The run folder.", show_default="runs/SCENARIO-TIME"),
    ] = None,
    replay: Replay = None,
    fail_if: FailIf = None,
    abort_if: AbortIf = None,
    workers: Workers = 1,
    baseline: Baseline = None,
    max_regress: MaxRegress = None,
    shard: ShardOption = None,
    start_at: StartAt = None,
    csv: Csv = False,
    calibrate: Calibrate = True,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No live progress.")] = False,
    base_url: BaseUrl = None,
    state_dir: StateDir = DEFAULT_STATE_DIR,
    ledger_url: LedgerUrl = None,
    cache_url: CacheUrl = None,
    mysql_url: MySQLUrl = None,
) -> None:
    """Storm a sale or a storefront with a scenario's load, and record every attempt.

    Every connection is up before the first claim leaves. Latency runs from the instant that the
    plan gives a claim, not from its send. Works on any server of the family: give --base-url and
    --tokens.
    """
    from flashsale.cli.storming import StormRequest, print_run, run_storm
    from flashsale.storm.attack.interrupts import ignore_signals

    planned, plan = chosen(scenario, replay)
    loaded = demanding(planned, fail_if)
    everybody = crowd(loaded, workers, shard, start_at)
    if everybody.shard is not None and baseline is not None:
        raise UsageError(
            "--baseline: a shard is a part; merge all, then `flashsale report BASELINE MERGED`"
        )
    stores = _stores_if_known(state_dir, ledger_url, cache_url, mysql_url)
    if stores is not None and (ledger_url or mysql_url):
        _greet(stores)
    aborts, held = aborting(loaded, abort_if), rival(loaded, baseline, max_regress)
    request = StormRequest(
        scenario=loaded,
        plan=plan,
        base_url=find_base_url(state_dir, base_url),
        tokens=tokens or state_dir / TOKENS,
        stores=stores,
        state_dir=state_dir,
        out=out,
        crowd=everybody,
        quiet=quiet,
        calibrate=calibrate,
        aborts=aborts,
        csv=csv,
        rival=held,
    )
    run = run_storm(request)
    if run.summary.load.interrupted_by is not None:
        ignore_signals()  # all is written; an impatient user gets the table and the exit code
    print_run(run)
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
    from flashsale.verify.connection import connect

    with connect(stores.ledger_url, stores.mysql_url):
        pass
