"""A rehearsal: serve, seed, warm, storm and verify on a fresh private stack, with one exit code."""

import os
import secrets
import shutil
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from redis import Redis

from flashsale.campaign.judging import judge_run
from flashsale.campaign.stores import DEFAULT_STATE_DIR, TOKENS, Stores
from flashsale.campaign.storming import StormRequest, run_storm
from flashsale.campaign.teller import SILENT, Teller
from flashsale.errors import ExitCode, UsageError
from flashsale.run.folder import ensure_run_folder
from flashsale.scenario.scenario import Scenario
from flashsale.seeding.load import seed
from flashsale.seeding.settings import SeedSettings
from flashsale.seeding.warm import await_warmed, drop_shops, expire_shops, warm
from flashsale.settings import CatalogSettings
from flashsale.stack.launch import start_detached, stop_stack
from flashsale.stack.state import StackState

REHEARSALS = DEFAULT_STATE_DIR / "rehearsals"
_OTHERS = ("FLASHSALE_LEDGER_URL", "FLASHSALE_CACHE_URL", "FLASHSALE_MYSQL_URL")
_STORMED_IN_VAIN = "the storm was cut short, so there is nothing to judge"


@dataclass(frozen=True)
class RehearsalRequest:
    """What is rehearsed, and on what.

    `storm` says all of the storm but where its target is. The stack's own folder is `state_dir`,
    which must not exist yet, else a new one below REHEARSALS. Where it is to be `kept`, the stack
    stays up. `exercised` names checks of `verify` that have to have met what they guard.
    """

    storm: StormRequest
    state_dir: Path | None = None
    keep: bool = False
    observe: bool = False
    exercised: tuple[str, ...] = ()


def rehearse(request: RehearsalRequest, teller: Teller = SILENT) -> ExitCode:
    """The exit code of the whole; the run folder holds what it rests on.

    Raises UsageError before anything is started, else what serving, seeding, warming, storming or
    judging raise.
    """
    scenario = request.storm.scenario
    folder = request.state_dir or REHEARSALS / f"{scenario.name}-{secrets.token_hex(4)}"
    if folder.exists():
        raise UsageError(f"--state-dir: expected a folder that does not exist yet, got {folder}")
    ensure_run_folder(request.storm.out)
    with _stack(folder, request, teller) as state:
        _prepare(scenario, folder, state, teller)
        storm = replace(
            request.storm,
            base_url=state.base_url,
            tokens=folder / TOKENS,
            stores=Stores.of(state),
            state_dir=folder,
            verify_awaited=scenario.sale is not None,
        )
        code = _storm_and_judge(storm, request.exercised, teller)
        if request.observe:
            teller.observed(state)
        if request.keep:
            _tell_where(folder, state, teller)
    return code


@contextmanager
def _stack(folder: Path, request: RehearsalRequest, teller: Teller) -> Iterator[StackState]:
    """A stack of its own; gone at the end with its folder, unless it is to be kept.

    A verdict, whatever it is, leaves a stack up that is to be kept. An error takes it down, but
    its folder stays: it holds the evidence, and `serve --state-dir` brings it back.
    """
    teller.say(f"starting a private stack in {folder}")
    if named := [name for name in _OTHERS if os.environ.get(name)]:
        teller.say(f"on private stores, whatever {', '.join(named)} says")
    arguments = ["--port", "0", *(["--observe"] if request.observe else [])]
    up = False
    try:
        yield start_detached(
            folder,
            arguments,
            tied=not request.keep,
            environment=_environment(request),
        )
        up = request.keep
    finally:
        if not up:
            _ignore_signals()
            stop_stack(folder)
            if not request.keep:
                shutil.rmtree(folder, ignore_errors=True)


def _environment(request: RehearsalRequest) -> Mapping[str, str]:
    """What `serve` finds in its own: ours, but for stores of others, and the scenario's wishes."""
    scenario = request.storm.scenario
    wanted = {name: value for name, value in os.environ.items() if name not in _OTHERS}
    if request.observe:  # a storm may last no longer than a second
        wanted.setdefault("FLASHSALE_STACK_OBSERVE_INTERVAL_S", "1")
    if scenario.browse is None:
        return wanted
    wanted["FLASHSALE_STACK_MARIADB_STATISTICS"] = "1"
    prepare = scenario.prepare
    if prepare is not None:
        wanted["FLASHSALE_CATALOG_LOAD_DELAY_MS"] = str(prepare.load_delay_ms)
        if prepare.hot_shops is not None:
            wanted["FLASHSALE_CATALOG_HOT_SHOPS"] = str(prepare.hot_shops)
    return wanted


def _ignore_signals() -> None:
    """Let nothing interrupt the clean-up: it is bounded, and the last thing this process does."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)


def _prepare(scenario: Scenario, folder: Path, state: StackState, teller: Teller) -> None:
    settings, stores = seed_settings(scenario), Stores.of(state)
    teller.say(f"seeding {settings.users:,} users, {_goods(scenario, settings)}; warming them")
    with teller.working("seed") as progress:
        seed(settings, stores, folder / TOKENS, progress)
    with teller.working("warm") as progress:
        warm(stores, progress, _catalog(scenario))
    if scenario.browse is not None:
        entries = scenario.prepare.entries if scenario.prepare else "as_warmed"
        _age(entries, scenario.browse.shop_ids, state, teller)


def _catalog(scenario: Scenario) -> CatalogSettings:
    """The catalogue as the stack's replicas see it, for `warm` in this process."""
    prepare = scenario.prepare if scenario.browse is not None else None
    if prepare is None:
        return CatalogSettings.load()
    return CatalogSettings.load(load_delay_ms=prepare.load_delay_ms, hot_shops=prepare.hot_shops)


def _goods(scenario: Scenario, settings: SeedSettings) -> str:
    goods = [f"{settings.units:,} units"] if scenario.sale else []
    return " and ".join(goods + [f"{settings.shops:,} shops"] * (scenario.browse is not None))


def _age(entries: str, shops: range, state: StackState, teller: Teller) -> None:
    """Leave the cache as the scenario wants to find it, once nobody warms it any more."""
    with Redis.from_url(state.cache_url) as cache:
        await_warmed(cache)
        if entries == "as_warmed":
            return
        teller.say(f"making the entries of {len(shops):,} shops {entries}")
        (drop_shops if entries == "absent" else expire_shops)(cache, shops)


def seed_settings(scenario: Scenario) -> SeedSettings:
    """The data set that a scenario needs. Pure, but for what the environment says of seeding."""
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


def _storm_and_judge(request: StormRequest, exercised: tuple[str, ...], teller: Teller) -> ExitCode:
    teller.say(f"storming {request.base_url}")
    run = run_storm(request, teller)
    interrupted = run.summary.load.interrupted_by is not None
    if interrupted:
        teller.say(_STORMED_IN_VAIN)
    if interrupted or request.scenario.sale is None:  # without a sale, thresholds are the verdict
        return ExitCode(run.summary.exit_code)
    assert request.stores is not None
    return judge_run(
        run.folder.path, request.stores, teller, stormed=run.summary, required=exercised
    ).exit_code


def _tell_where(folder: Path, state: StackState, teller: Teller) -> None:
    teller.say(f"the stack is kept at {state.base_url}; its stores are in {folder / 'stack.json'}")
    for child in state.children:
        if child.kind == "prometheus":
            teller.say(f"its Prometheus is at {child.url}")
    teller.say(f"stop it with: flashsale stop --state-dir {folder}")
