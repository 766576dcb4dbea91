"""One storm, whole: preflight, baseline, storm, mark of the end, figures of the database, reports.

`storm` knows HTTP alone and `verify` the stores alone; here they meet. A summary is judged and
written once, and rendered once.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from flashsale.books import ShopBooks
from flashsale.campaign.campaign import SILENT, Stores, StormRun, Teller, record_stack
from flashsale.campaign.judging import EarlierRun
from flashsale.campaign.loads import LoadCount
from flashsale.errors import (
    ExitCode,
    FlashsaleError,
    NothingJudgedError,
    UnreachableError,
    UsageError,
)
from flashsale.report.files import write_reports, write_sheet
from flashsale.run.attempts import PlanColumns
from flashsale.run.folder import RunFolder, create_run_folder, ensure_no_run, telling, write_file
from flashsale.run.parts import write_faults
from flashsale.run.summary import Summary
from flashsale.scenario import template
from flashsale.scenario.scenario import Scenario
from flashsale.scenario.target import Target, Tls
from flashsale.scenario.thresholds import Threshold
from flashsale.scenario.tokens import read_tokens, read_tokens_of, read_users, read_users_of
from flashsale.storm.attack.attack import Progress, ShowProgress
from flashsale.storm.attack.calibration import calibrate
from flashsale.storm.attack.connections import ensure_descriptors, ensure_ports
from flashsale.storm.attack.instants import Interrupts, interrupts
from flashsale.storm.attack.questions import preflight
from flashsale.storm.crew.crew import connections_each
from flashsale.storm.crew.rendezvous import Rendezvous
from flashsale.storm.crew.shard import Shard
from flashsale.storm.figures.conclusion import Finished, with_loads
from flashsale.storm.figures.figures import Loads
from flashsale.storm.figures.generator import Calibration
from flashsale.storm.plan.plan import Plan
from flashsale.storm.storm import Assignment, storm
from flashsale.verify import ending
from flashsale.verify.observation import Baseline
from flashsale.verify.observation import take as take_stores_baseline
from flashsale.verify.shop_rows import UnfitError
from flashsale.verify.shop_seen import take_baseline

if TYPE_CHECKING:  # its relays and watchers are for storms with faults, on a stack of our own
    from flashsale.faults.making import Making


@dataclass(frozen=True)
class StormRequest:
    """What a storm is asked for; a rehearsal fills in where its own target, tokens and stores are.

    Without `stores` no baseline is taken; with `state_dir`, `verify` finds its stack by itself.
    A `plan` is fired as it is. `shard` is this machine's part, and `start_at_us` the instant at
    which the barrier opens, in µs since 1970, UTC; a `rendezvous` tells it in place of that, and
    has taken the baseline, in which each voucher had its `units`. With `verify_awaited` nothing
    counts as judged before the sale was verified, too. `faults` are made under it, by who knows
    the stack.
    """

    scenario: Scenario
    base_url: str = ""
    tokens: Path = Path()
    users_before: int = 0
    stores: Stores | ShopBooks | None = None
    state_dir: Path | None = None
    out: Path | None = None
    plan: PlanColumns | None = None
    processes: int = 1
    shard: Shard | None = None
    start_at_us: int | None = None
    rendezvous: Rendezvous | None = None
    units: Mapping[int, int] | None = None
    calibrate: bool = True
    aborts: tuple[Threshold, ...] = ()
    baseline: EarlierRun | None = None
    verify_awaited: bool = False
    csv: bool = False
    faults: "Making | None" = None
    tls: Tls | None = None


class StoppedError(FlashsaleError):
    """A signal came when the storm was over: its files are written, what follows does not."""

    def __init__(self, message: str, exit_code: ExitCode) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def run_storm(request: StormRequest, teller: Teller = SILENT) -> StormRun:
    """Run the storm and leave its files.

    A run that went wrong is returned, with its exit code in the summary; what kept it from being
    run is raised (UsageError, UnreachableError), and so is StoppedError where a signal came
    between the storm and the end of its reports.
    """
    scenario = request.scenario
    if request.out is not None:
        ensure_no_run(request.out)  # before anybody is asked for anything
    columns = users_of(request)
    tokens = tokens_of(request, columns)
    ensure_descriptors(connections_each(scenario.load.connections, request.processes))
    ensure_ports(_connections(request))
    target, asks_after = greeted(request, tokens, columns, teller)
    baseline = baseline_taken(request, teller) if request.rendezvous is None else None
    folder = create_run_folder(scenario.name, request.out, datetime.now(UTC), teller.say)
    units = request.units if request.rendezvous else keep_units(request, baseline, folder)
    if request.state_dir is not None:
        record_stack(folder.path, request.state_dir)
    loads = count_of_loads(request)
    assignment = _assignment(request, target, asks_after, folder, units, columns)
    _tell_start(request, teller)
    with interrupts() as taken:
        with (
            teller.storming(_stock(request, units)) as show,
            _faults(request, folder, teller, taken) as begin,
        ):

            def look(progress: Progress) -> None:
                begin(progress)
                show(progress)

            finished = storm(assignment, tokens, look)
        mark_end(request, folder, teller)
        summary = reported(request, folder, finished, loads, teller)
    if taken.exit_code is not None and summary.load.interrupted_by is None:
        raise StoppedError(f"interrupted; the run is in {folder.path}", taken.exit_code)
    run = StormRun(summary, folder)
    teller.stormed(run)
    return run


def _assignment(
    request: StormRequest,
    target: Target,
    asks_after: bool,
    folder: RunFolder,
    units: Mapping[int, int] | None,
    columns: Mapping[int, Mapping[str, str]],
) -> Assignment:
    """What the storm is given: what was asked for, and what was found before it."""
    return Assignment(
        scenario=request.scenario,
        target=target,
        folder=folder,
        units=units,
        processes=request.processes,
        aborts=request.aborts,
        asks_after=asks_after,
        verify_awaited=request.verify_awaited,
        plan=request.plan,
        shard=request.shard,
        start_at_us=request.start_at_us,
        rendezvous=request.rendezvous,
        calibration=_calibration(request),
        columns=columns,
    )


def reported(
    request: StormRequest,
    folder: RunFolder,
    finished: Finished,
    loads: LoadCount | None,
    teller: Teller,
) -> Summary:
    """The summary with what only the campaign knows, written and rendered."""
    summary, unwritten = finished.summary, list(finished.unwritten)
    if loads is not None:
        found = _counted(loads, finished.plan, teller)
        summary = with_loads(request.scenario, finished.figures, summary, found)
    if request.baseline is not None:
        summary = request.baseline.beside(summary, folder.path)
    if summary is not finished.summary:
        with telling(unwritten.append):
            summary.write(folder.summary)
    write_reports(folder, summary, unwritten.append, finished.figures)
    if request.csv:
        with telling(unwritten.append):
            write_sheet(folder.attempts, folder.sheet)
    for line in dict.fromkeys(unwritten):
        teller.say(line)
    return summary


@contextmanager
def _faults(
    request: StormRequest, folder: RunFolder, teller: Teller, taken: Interrupts
) -> Iterator[ShowProgress]:
    """What is to be shown the storm's progress, so that its faults begin with it; at the end of
    the block all of them are healed, and in faults.json."""
    making = request.faults
    if making is None:
        if request.scenario.fault:
            teller.say("its faults are left out: `flashsale rehearse` makes them, on its own stack")
        yield lambda progress: None
        return
    try:
        yield lambda progress: making.begin(progress.elapsed_s, folder.path)
    finally:
        records = making.finish(at_once=taken.exit_code is not None)
    with telling(teller.say):
        write_faults(folder, records)


def users_of(request: StormRequest) -> dict[int, dict[str, str]]:
    """What the users' file of a shop says of whoever comes; users 1, 2, … where nothing is asked
    of it, and no file was given."""
    scenario = request.scenario
    if not (scenario.needs_users and scenario.target.is_own):
        return {}
    columns = scenario.target.columns(scenario.steps)
    before, count = request.users_before, scenario.load.user_count
    users = None if request.plan is None else set(request.plan.users)
    if not columns and not request.tokens.is_file():
        every = range(before + 1, before + count + 1) if users is None else sorted(users)
        return {user: {} for user in every}
    if users is not None:
        return read_users_of(request.tokens, columns, users, scenario.target.user_column)
    column = scenario.target.user_column
    return _after(read_users(request.tokens, columns, before + count, column), before)


def tokens_of(request: StormRequest, columns: Mapping[int, Mapping[str, str]]) -> dict[int, str]:
    """The sessions of whoever comes; none where nobody has to be anybody."""
    if not request.scenario.needs_users:
        return {}
    if request.scenario.target.is_own:
        return {user: row.get("token", "") for user, row in columns.items()}
    if request.plan is not None:
        return read_tokens_of(request.tokens, set(request.plan.users))
    before = request.users_before
    return _after(read_tokens(request.tokens, before + request.scenario.load.user_count), before)


_Of = TypeVar("_Of")


def _after(users: dict[int, _Of], before: int) -> dict[int, _Of]:
    return dict(islice(users.items(), before, None)) if before else users


def _connections(request: StormRequest) -> int:
    """How many this machine opens, in all its processes."""
    every, shard = request.scenario.load.connections, request.shard
    return every if shard is None else connections_each(every, shard.of)


def _session_headers(
    scenario: Scenario, columns: Mapping[int, Mapping[str, str]]
) -> dict[str, str] | None:
    """How the first user of a shop of its own kind says who it is; None for the family's way, and
    no header at all where that is known only when somebody has logged in."""
    shop, first = scenario.target, next(iter(columns.items()), None)
    if not shop.is_own:
        return None
    if first is None or shop.buy is None:
        return {}
    user, row = first
    values = {"user": row.get("user_id", str(user)), "token": row.get("token", "")}
    values |= {f"user.{name}": value for name, value in row.items()}
    made = {n: template.in_header(t) for n, t in {**shop.headers, **shop.buy.headers}.items()}
    known = {n: it for n, it in made.items() if set(template.names_in(it)) <= values.keys()}
    return {name: template.fill(it, values) for name, it in known.items()}


def greeted(
    request: StormRequest,
    tokens: Mapping[int, str],
    columns: Mapping[int, Mapping[str, str]],
    teller: Teller,
) -> tuple[Target, bool]:
    """The target at the address that answered, and whether it can be asked after claims in doubt:
    one that is not known might take the question for an order. Raises UnreachableError."""
    routes = request.scenario.target.routes
    target, token = Target.at(request.base_url, request.tls), next(iter(tokens.values()), "")
    if target.tls is not None and target.tls.insecure:
        teller.say(f"--insecure: who answers at {target.base_url} shows a certificate unchecked")
    greeting = preflight(target, routes, token, _session_headers(request.scenario, columns))
    asks_after = bool(routes.status) and (greeting.is_known or "status" in routes.model_fields_set)
    if not asks_after and request.scenario.sale is not None and routes.status:
        teller.say(
            f"{request.base_url} has no {routes.health or 'health route'}, so claims in doubt stay "
            "so: target.status in the scenario names the route to ask"
        )
    return greeting.target, asks_after


def _calibration(request: StormRequest) -> Calibration | None:
    """What the generator can do, but for a storm that has an instant to keep, as shards have."""
    is_free = request.start_at_us is None and request.rendezvous is None
    return calibrate() if request.calibrate and is_free else None


def _tell_start(request: StormRequest, teller: Teller) -> None:
    if request.start_at_us is not None:
        instant = datetime.fromtimestamp(request.start_at_us / 1e6, UTC)
        left_s = (instant - datetime.now(UTC)).total_seconds()
        teller.say(f"begins at {instant:%Y-%m-%dT%H:%M:%SZ}, in {left_s:,.0f} s")


def _stock(request: StormRequest, units: Mapping[int, int] | None) -> int | None:
    """The units to be sold by this storm alone; None where others sell beside it."""
    if request.scenario.sale is None or request.shard is not None:
        return None
    return request.scenario.sale.units if units is None else sum(units.values())


def count_of_loads(request: StormRequest) -> LoadCount | None:
    """Count what reads cost the database from now on, where it can be asked."""
    if request.scenario.browse is None or request.shard is not None:
        return None
    if not isinstance(request.stores, Stores):
        return None
    return LoadCount(request.stores.mysql_url)


def _counted(count: LoadCount, plan: Plan, teller: Teller) -> Loads:
    """The database's count of the storm's loads, beside what was asked for."""
    counted = count.settled()
    if counted.loads is None:
        teller.say(f"loads are not counted: {counted.why}")
    return Loads(counted.loads, *plan.asked(), counted.why)


def baseline_taken(request: StormRequest, teller: Teller) -> Baseline | None:
    """What the stores hold before the storm; None where that is not known.

    A storm goes on without it, and verify says what it cannot judge. Raises UsageError where the
    books of a shop are not as its file says.
    """
    sale = request.scenario.sale
    if sale is None:
        return None
    try:
        match request.stores:
            case None:
                raise UnreachableError("the stores are not known")
            case ShopBooks() as books:
                return take_baseline(books, sale.units_by_voucher(), sale.quantity)
            case stores:
                vouchers = list(sale.voucher_ids)
                return take_stores_baseline(stores.ledger_url, stores.mysql_url, vouchers)
    except UnfitError as error:
        raise UsageError(str(error)) from error
    except (UnreachableError, NothingJudgedError) as error:
        teller.say(f"no baseline, so verify will judge less: {error}")
        return None


def keep_units(
    request: StormRequest, baseline: Baseline | None, folder: RunFolder
) -> Mapping[int, int] | None:
    """Write baseline.json; the units that are for sale by it, None where they are not known."""
    if baseline is None:
        return None
    write_file(folder.baseline, baseline.to_json())
    sales = baseline.sales.items()
    if isinstance(request.stores, ShopBooks):
        return {v: kept.mysql.stock for v, kept in sales if kept.mysql is not None}
    return {v: kept.redis_stock for v, kept in sales if kept.redis_stock is not None}


def mark_end(request: StormRequest, folder: RunFolder, teller: Teller) -> None:
    """Write ending.json, so that later storms on the same sale do not disturb the judgement."""
    sale, stores = request.scenario.sale, request.stores
    if sale is None or not isinstance(stores, Stores) or not folder.baseline.exists():
        return
    claim_ms = request.scenario.timeouts.claim_ms
    try:
        taken = ending.take(stores.ledger_url, stores.mysql_url, sale.voucher_ids, claim_ms)
        write_file(folder.ending, taken.to_json())
    except FlashsaleError as error:
        teller.say(f"its end is not marked, so verify before the next: {error}")
