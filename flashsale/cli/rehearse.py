"""`flashsale rehearse`: the whole of it on a fresh private stack, one verdict, one exit code."""

import os
import secrets
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

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
from flashsale.cli.options import DEFAULT_STATE_DIR, Stores
from flashsale.cli.processes import Calibrate, Workers, crowd
from flashsale.cli.replay import Replay, ScenarioName, chosen
from flashsale.cli.workflow import tell_workflow
from flashsale.errors import UsageError

if TYPE_CHECKING:
    from flashsale.cli.storming import StormRequest, StormRun
    from flashsale.seeding.settings import SeedSettings
    from flashsale.stack.state import StackState
    from flashsale.storm.workload.scenario import Scenario

REHEARSALS = DEFAULT_STATE_DIR / "rehearsals"
_OTHERS = ("FLASHSALE_LEDGER_URL", "FLASHSALE_CACHE_URL", "FLASHSALE_MYSQL_URL")
_STORMED_IN_VAIN = "the storm was cut short, so there is nothing to judge"


def command(
    scenario: ScenarioName = None,
    keep: Annotated[
        bool, typer.Option("--keep", help="Leave the stack up, to look at or to break.")
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(help="The run folder.", show_default="runs/SCENARIO-TIME"),
    ] = None,
    state_dir: Annotated[
        Path | None,
        typer.Option(
            help="The stack's own folder; it must not exist yet.",
            show_default=f"{REHEARSALS}/SCENARIO-…",
        ),
    ] = None,
    replay: Replay = None,
    fail_if: FailIf = None,
    abort_if: AbortIf = None,
    workers: Workers = 1,
    baseline: Baseline = None,
    max_regress: MaxRegress = None,
    csv: Csv = False,
    observe: Annotated[
        bool, typer.Option("--observe", help="Prometheus and exporters beside the stack.")
    ] = False,
    calibrate: Calibrate = True,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No live progress.")] = False,
) -> None:
    """Serve, seed, warm, storm and verify on a fresh private stack, in one go."""
    from flashsale.cli.panels import show_when_filled
    from flashsale.cli.seed import TOKENS
    from flashsale.cli.storming import StormRequest
    from flashsale.storm.record.runfolder import ensure_run_folder

    planned, plan = chosen(scenario, replay)
    loaded = demanding(planned, fail_if)
    processes = crowd(loaded, workers)
    folder = state_dir or REHEARSALS / f"{loaded.name}-{secrets.token_hex(4)}"
    if folder.exists():
        raise UsageError(f"--state-dir: expected a folder that does not exist yet, got {folder}")
    ensure_run_folder(out)
    aborts, held = aborting(loaded, abort_if), rival(loaded, baseline, max_regress)
    with _environment(loaded), _stack(folder, keep, observe) as state:
        _prepare(loaded, folder, state)
        code = _storm_and_judge(
            StormRequest(
                scenario=loaded,
                plan=plan,
                base_url=state.base_url,
                tokens=folder / TOKENS,
                stores=_stores(state),
                state_dir=folder,
                out=out,
                crowd=processes,
                quiet=quiet,
                calibrate=calibrate,
                aborts=aborts,
                rival=held,
                csv=csv,
                verify_awaited=loaded.sale is not None,
            )
        )
        if observe:
            show_when_filled(state)
        if keep:
            _tell_where(folder, state)
    raise typer.Exit(code)


@contextmanager
def _environment(scenario: "Scenario") -> Iterator[None]:
    """What the stack and `warm` are to find in theirs, for as long as this lasts."""
    if scenario.browse is None:
        yield
        return
    wanted = {"FLASHSALE_STACK_MARIADB_STATISTICS": "1"}
    if scenario.prepare is not None:
        wanted["FLASHSALE_CATALOG_LOAD_DELAY_MS"] = str(scenario.prepare.load_delay_ms)
        if scenario.prepare.hot_shops is not None:
            wanted["FLASHSALE_CATALOG_HOT_SHOPS"] = str(scenario.prepare.hot_shops)
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextmanager
def _stack(folder: Path, keep: bool, observe: bool) -> "Iterator[StackState]":
    """A stack of its own; gone at the end with its folder, unless it is to be kept.

    A verdict, whatever it is, leaves a stack up that is to be kept. An error takes it down, but
    its folder stays: it holds the evidence, and `serve --state-dir` brings it back.
    """
    from flashsale.stack.launch import start_detached, stop_stack

    _say(f"starting a private stack in {folder}")
    _forget_other_stores()
    up = False
    try:
        yield start_detached(folder, ["--port", "0", *_observed(observe)], tied=not keep)
        up = keep
    finally:
        if not up:
            _ignore_signals()
            stop_stack(folder)
            if not keep:
                shutil.rmtree(folder, ignore_errors=True)


def _observed(observe: bool) -> list[str]:
    """How `serve` is told to be observed: every second, since a storm may last no longer."""
    if not observe:
        return []
    os.environ.setdefault("FLASHSALE_STACK_OBSERVE_INTERVAL_S", "1")
    return ["--observe"]


def _forget_other_stores() -> None:
    """A rehearsal seeds and storms its own stores, never those that the environment names."""
    named = [name for name in _OTHERS if os.environ.pop(name, None)]
    if named:
        _say(f"on private stores, whatever {', '.join(named)} says")


def _ignore_signals() -> None:
    """Let nothing interrupt the clean-up: it is bounded, and the last thing this process does."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)


def _prepare(scenario: "Scenario", folder: Path, state: "StackState") -> None:
    from flashsale.cli.progress import shown
    from flashsale.cli.seed import TOKENS
    from flashsale.seeding.load import seed
    from flashsale.seeding.warm import warm

    settings = _seed_settings(scenario)
    stores = _stores(state)
    _say(f"seeding {settings.users:,} users, {_goods(scenario, settings)}; warming them")
    with shown("seed") as progress:
        seed(settings, stores, folder / TOKENS, progress)
    with shown("warm") as progress:
        warm(stores, progress)
    if scenario.browse is not None:
        entries = scenario.prepare.entries if scenario.prepare else "as_warmed"
        _age(entries, scenario.browse.shop_ids, state)


def _goods(scenario: "Scenario", settings: "SeedSettings") -> str:
    goods = [f"{settings.units:,} units"] if scenario.sale else []
    return " and ".join(goods + [f"{settings.shops:,} shops"] * (scenario.browse is not None))


def _age(entries: str, shops: range, state: "StackState") -> None:
    """Leave the cache as the scenario wants to find it, once nobody warms it any more."""
    from redis import Redis

    from flashsale.seeding.expiry import await_warmed, drop_shops, expire_shops

    with Redis.from_url(state.cache_url) as cache:
        await_warmed(cache)
        if entries == "as_warmed":
            return
        _say(f"making the entries of {len(shops):,} shops {entries}")
        (drop_shops if entries == "absent" else expire_shops)(cache, shops)


def _seed_settings(scenario: "Scenario") -> "SeedSettings":
    from flashsale.seeding.settings import SeedSettings

    settings, sale = SeedSettings(), scenario.sale
    if scenario.needs_users:
        settings = replace(settings, users=scenario.load.user_count)
    if scenario.browse is not None:
        seeded = scenario.prepare.seeded_shops if scenario.prepare else 0
        settings = replace(settings, shops=max(scenario.browse.shop_ids.stop - 1, seeded))
    if sale is not None:
        first, count, units = sale.first_voucher, sale.vouchers, sale.units
        settings = replace(settings, vouchers=count, first_voucher=first, units=units)
    return settings


def _storm_and_judge(request: "StormRequest") -> int:
    from rich.console import Console

    from flashsale.cli.storming import print_run, run_storm
    from flashsale.cli.verdict_view import show
    from flashsale.cli.verify import render, run_verdict, run_verify

    _say(f"storming {request.base_url}")
    run = run_storm(request)
    interrupted = run.summary.load.interrupted_by is not None
    # Without a sale, thresholds are the verdict.
    is_over = interrupted or request.scenario.sale is None
    print_run(run, interim=not is_over)
    if interrupted:
        _say(_STORMED_IN_VAIN)
    if is_over:
        tell_workflow(run.summary)
        _tell_report(run)
        return run.summary.exit_code
    assert request.stores is not None
    judgement = run_verify(run.folder.path, request.stores)
    verdict, code = run_verdict(run.folder.path, judgement)
    show(judgement, Console(), verdict, code)
    render(run.folder.path)
    _tell_report(run)
    return code


def _tell_report(run: "StormRun") -> None:
    typer.echo(f"report {run.folder.report}")


def _tell_where(folder: Path, state: "StackState") -> None:
    _say(f"the stack is kept at {state.base_url}; its stores are in {folder / 'stack.json'}")
    for child in state.children:
        if child.kind == "prometheus":
            _say(f"its Prometheus is at {child.url}")
    _say(f"stop it with: flashsale stop --state-dir {folder}")


def _stores(state: "StackState") -> Stores:
    return Stores(state.ledger_url, state.cache_url, state.mysql_url)


def _say(line: str) -> None:
    typer.echo(f"rehearse: {line}", err=True)
