"""A rehearsal: serve, seed, warm, storm and verify on a fresh private stack, with one exit code."""

import json
import os
import secrets
import shutil
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from redis import Redis

from flashsale.campaign.campaign import DEFAULT_STATE_DIR, SILENT, TOKENS, Stores, Teller
from flashsale.campaign.judging import judge_run
from flashsale.campaign.rebuilding import RebuildReport, rebuild
from flashsale.campaign.storming import StormRequest, run_storm
from flashsale.errors import ExitCode, UsageError, worst
from flashsale.faults.fault import RebuildResult, Site
from flashsale.faults.making import Making, ensure_possible, settings_for
from flashsale.faults.outside import Relay, links_of
from flashsale.faults.shim import install, needs_shim
from flashsale.model import Durability
from flashsale.run.folder import ensure_run_folder
from flashsale.scenario.fault import LedgerForm, Processes
from flashsale.scenario.scenario import Scenario
from flashsale.seeding.load import seed
from flashsale.seeding.settings import SeedSettings
from flashsale.seeding.warm import await_warmed, drop_shops, expire_shops, warm
from flashsale.settings import CatalogSettings
from flashsale.stack import cluster, sentinel
from flashsale.stack.port import LOOPBACK
from flashsale.stack.settings import ExternalStores, StackSettings, stack_settings
from flashsale.stack.state import StackState, start_detached, stop_stack

REHEARSALS = DEFAULT_STATE_DIR / "rehearsals"
_OTHERS = ("FLASHSALE_LEDGER_URL", "FLASHSALE_CACHE_URL", "FLASHSALE_MYSQL_URL")
_STORMED_IN_VAIN = "the storm was cut short, so there is nothing to judge"


@dataclass(frozen=True)
class RehearsalRequest:
    """What is rehearsed, and on what.

    `storm` says all of the storm but where its target is. The stack's own folder is `state_dir`,
    which must not exist yet, else a new one below REHEARSALS. Where it is to be `kept`, the stack
    stays up. `exercised` names checks of `verify` that have to have met what they guard.
    `spare_users` are seeded beyond those of the storm.
    `environment` is the stack's beside this process's own, and `planted` is called when all is
    seeded and warm, before the storm.
    """

    storm: StormRequest
    state_dir: Path | None = None
    keep: bool = False
    observe: bool = False
    exercised: tuple[str, ...] = ()
    spare_users: int = 0
    environment: Mapping[str, str] = field(default_factory=dict)
    planted: Callable[[StackState], None] = lambda state: None


def rehearse(request: RehearsalRequest, teller: Teller = SILENT) -> ExitCode:
    """The exit code of the whole; the run folder holds what it rests on.

    Raises UsageError before anything is started, else what serving, seeding, warming, storming or
    judging raise.
    """
    scenario = request.storm.scenario
    folder = request.state_dir or REHEARSALS / f"{scenario.name}-{secrets.token_hex(4)}"
    if folder.exists():
        raise UsageError(f"--state-dir: expected a folder that does not exist yet, got {folder}")
    settings = _settings(request)
    ensure_run_folder(request.storm.out)
    with (
        _relayed(folder, request, settings) as relay,
        _stack(folder, request, settings, teller, relay) as state,
    ):
        _prepare(request, folder, state, teller)
        request.planted(state)
        making = _making(folder, scenario, settings, relay, teller)
        port = relay.ports.get(_STORM_LINK) if relay else None
        storm = replace(
            request.storm,
            base_url=f"http://{LOOPBACK}:{port}" if port else state.base_url,
            tokens=folder / TOKENS,
            stores=Stores.of(state),
            state_dir=folder,
            verify_awaited=scenario.sale is not None,
            faults=making,
        )
        code = _storm_and_judge(storm, request.exercised, teller)
        if making is not None:
            code = _with_faults(code, making, teller)
        if request.observe:
            teller.observed(state)
        if request.keep:
            _tell_where(folder, state, teller)
    return code


_STORM_LINK = "storm->nginx"


@contextmanager
def _relayed(
    folder: Path, request: RehearsalRequest, settings: StackSettings
) -> Iterator[Relay | None]:
    """The relay of the links on which the scenario has faults, None where it has none.

    Raises UsageError for faults that this stack cannot have.
    """
    faults, processes = request.storm.scenario.fault, _processes(settings)
    ensure_possible(faults, processes)
    links = links_of(faults, processes)
    if not links:
        yield None
        return
    with Relay(folder, links) as relay:
        yield relay


def _settings(request: RehearsalRequest) -> StackSettings:
    """What the stack is to be like. Raises UsageError for what none can be."""
    told = _environment(request)
    names = ("replicas", "workers", "ha", "cluster", "durability")
    given = {name: told.get(f"FLASHSALE_STACK_{name.upper()}") or None for name in names}
    return stack_settings(ExternalStores(), observe=request.observe or None, **given)


def form_of(settings: StackSettings) -> LedgerForm:
    """What the ledger of such a stack is. Pure."""
    if settings.cluster:
        return LedgerForm.CLUSTER
    return LedgerForm.PAIR if settings.ha else LedgerForm.SERVER


def _processes(settings: StackSettings) -> Processes:
    form = form_of(settings)
    return Processes(settings.replicas, settings.workers, _NODES[form], form)


_NODES: Mapping[LedgerForm, tuple[str, ...]] = {
    LedgerForm.SERVER: (),
    LedgerForm.PAIR: sentinel.NODES,
    LedgerForm.CLUSTER: cluster.NODES,
}


def _making(
    folder: Path,
    scenario: Scenario,
    settings: StackSettings,
    relay: Relay | None,
    teller: Teller,
) -> Making | None:
    if not scenario.fault:
        return None
    site = Site(
        folder,
        scenario.sale.voucher_ids if scenario.sale else (),
        relay.disturb if relay else None,
        _rebuilt,
        confirms=settings.durability is Durability.REPLICATED,
    )
    return Making(scenario.fault, site, teller.say)


def _rebuilt(state: StackState, run: Path | None) -> RebuildResult:
    return _told_of(rebuild(Stores.of(state), apply=True, run=run))


def _told_of(report: RebuildReport) -> RebuildResult:
    """What a rebuild came to, in a line. Pure."""
    gone = report.gone or ()
    named = f"{', '.join(map(str, gone[:_NAMED]))}{', …' * (len(gone) > _NAMED)}"
    lost = f"{len(gone):,} acknowledged orders are gone" + (f": {named}" if gone else "")
    return RebuildResult(f"{len(report.differences):,} differences put right, {lost}", gone)


_NAMED = 10


def _with_faults(code: ExitCode, making: Making, teller: Teller) -> ExitCode:
    """The exit code of a rehearsal whose faults were to be made: without them it judged nothing."""
    missing = [record for record in making.finish() if not record.was_made]
    for record in missing:
        why = record.trouble or "the storm was over before it"
        teller.say(f"the fault {record.what} of {record.whom} was not made: {why}")
    return worst(code, ExitCode.NOTHING_JUDGED) if missing else code


@contextmanager
def _stack(
    folder: Path,
    request: RehearsalRequest,
    settings: StackSettings,
    teller: Teller,
    relay: Relay | None = None,
) -> Iterator[StackState]:
    """A stack of its own; gone at the end with its folder, unless it is to be kept.

    A verdict, whatever it is, leaves a stack up that is to be kept. An error takes it down, but
    its folder stays: it holds the evidence, and `serve --state-dir` brings it back.
    """
    teller.say(f"starting a private stack in {folder}")
    if named := [name for name in _OTHERS if os.environ.get(name)]:
        teller.say(f"on private stores, whatever {', '.join(named)} says")
    arguments = ["--port", "0", *(["--observe"] if request.observe else [])]
    up = False
    environment, faults = _environment(request, relay), request.storm.scenario.fault
    try:
        if needs_shim(faults):
            environment |= install(folder, faults, _processes(settings))
        yield start_detached(folder, arguments, tied=not request.keep, environment=environment)
        up = request.keep
    except BaseException as why:
        if not isinstance(why, Exception):  # a signal: what follows takes some seconds
            teller.say("interrupted; stopping the stack")
        raise
    finally:
        if not up:
            with _undisturbed():
                stop_stack(folder)
                if not request.keep:
                    shutil.rmtree(folder, ignore_errors=True)


def _environment(request: RehearsalRequest, relay: Relay | None = None) -> dict[str, str]:
    """What `serve` finds in its own: ours, but for stores of others, and the scenario's wishes."""
    scenario = request.storm.scenario
    wanted = {name: value for name, value in os.environ.items() if name not in _OTHERS}
    wanted = {**settings_for(scenario.fault), **wanted, **request.environment}
    if relay is not None:
        wanted["FLASHSALE_STACK_LINKS"] = json.dumps(dict(relay.ports))
    if request.observe:  # a storm may last no longer than a second
        wanted.setdefault("FLASHSALE_STACK_OBSERVE_INTERVAL_S", "1")
    prepare = scenario.prepare
    if prepare is not None and prepare.claims_per_call is not None:
        wanted["FLASHSALE_CLAIM_BATCH_MAX"] = str(prepare.claims_per_call)
    if scenario.browse is None:
        return wanted
    wanted["FLASHSALE_STACK_MARIADB_STATISTICS"] = "1"
    if prepare is not None:
        wanted["FLASHSALE_CATALOG_LOAD_DELAY_MS"] = str(prepare.load_delay_ms)
        if prepare.hot_shops is not None:
            wanted["FLASHSALE_CATALOG_HOT_SHOPS"] = str(prepare.hot_shops)
    return wanted


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Let nothing interrupt the clean-up, which is bounded; afterwards signals are as before."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, signal.SIG_IGN) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


def _prepare(request: RehearsalRequest, folder: Path, state: StackState, teller: Teller) -> None:
    scenario, stores = request.storm.scenario, Stores.of(state)
    settings = _seed_settings(scenario)
    settings = replace(settings, users=settings.users + request.spare_users)
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


def _seed_settings(scenario: Scenario) -> SeedSettings:
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
