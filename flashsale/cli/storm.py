"""`flashsale storm`: the load of a scenario on a running sale, its record and its report; and
`target`, what one would ask of somebody's shop."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from flashsale.books import ShopBooks
from flashsale.campaign.campaign import (
    DEFAULT_STATE_DIR,
    TOKENS,
    Stores,
    StormRun,
    find_base_url,
    find_stores,
    shop_books,
)
from flashsale.campaign.joining import ShardRequest, storm_as_shard
from flashsale.campaign.judging import aborting, only_thresholds, requiring
from flashsale.campaign.storming import StormRequest, run_storm
from flashsale.campaign.trying import mission_to_try, scenario_to_try, try_books, try_steps
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
    RendezvousUrl,
    Replay,
    Require,
    ScenarioName,
    ShardOption,
    StartAt,
    Tokens,
    Workers,
    chosen,
    doubtful,
    earlier,
    ensure_left_to_the_rendezvous,
    generators,
    required,
    shard_named,
)
from flashsale.cli.terminal import TerminalTeller, tell, tell_workflow
from flashsale.errors import ExitCode, FlashsaleError, UnreachableError, UsageError
from flashsale.scenario.scenario import Scenario, load_scenario
from flashsale.scenario.target import Tls
from flashsale.storm.attack.instants import ignore_signals
from flashsale.verify.stores import connect


def command(
    scenario: ScenarioName = None,
    replay: Replay = None,
    tokens: Tokens = None,
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
    rendezvous: RendezvousUrl = None,
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
    teller = TerminalTeller("storm", quiet)
    tls = tls_of(ca, cert, key, insecure)
    if rendezvous is not None:
        if shard is None:
            raise UsageError("--rendezvous: this goes with --shard K/N, or --shard auto in a Job")
        ensure_left_to_the_rendezvous(
            replay=replay,
            tokens=tokens,
            require=require or fail_if,
            abort_if=abort_if,
            baseline=baseline,
            start_at=start_at,
        )
        own = None if scenario is None else load_scenario(scenario, target)
        given = ShardRequest(base_url or "", out, workers, csv, tls)
        end(storm_as_shard(shard_named(shard), rendezvous, given, own, teller))
    planned, plan = chosen(scenario, replay, target)
    loaded = requiring(planned, only_thresholds(required(require, fail_if)))
    who = generators(loaded, workers, shard, start_at)
    if who.shard is not None and baseline is not None:
        raise UsageError(
            "--baseline: a shard is a part; merge all, then `flashsale report BASELINE MERGED`"
        )
    for doubt in doubtful(loaded.thresholds[len(planned.thresholds) :]):
        teller.say(doubt)
    where = find_base_url(state_dir, base_url)
    named = NamedStores(ledger_url, cache_url, mysql_url, books_url, books_redis_url, tls)
    request = StormRequest(
        scenario=loaded,
        plan=plan,
        base_url=where,
        tokens=tokens or state_dir / TOKENS,
        stores=named.stores(loaded, where, state_dir),
        state_dir=state_dir,
        out=out,
        processes=who.processes,
        shard=who.shard,
        start_at_us=who.start_at_us,
        calibrate=calibrate,
        aborts=aborting(loaded, abort_if or ()),
        baseline=earlier(loaded, baseline, max_regress),
        csv=csv,
        tls=tls,
    )
    end(run_storm(request, teller))


def end(run: StormRun) -> NoReturn:
    """Exit as a storm does that came to this."""
    if run.summary.load.interrupted_by is not None:
        ignore_signals()  # all is written; an impatient user gets the exit code
    tell_workflow(run.summary)
    raise typer.Exit(run.summary.exit_code)


@dataclass(frozen=True)
class NamedStores:
    """The stores that somebody named on a command line."""

    ledger: str | None
    cache: str | None
    mysql: str | None
    books: str | None
    books_redis: str | None
    tls: Tls | None = None

    def stores(
        self, scenario: Scenario, base_url: str, state_dir: Path
    ) -> Stores | ShopBooks | None:
        """Those of the scenario's shop, else those that are named or of the stack that runs here;
        None where a storm goes on without."""
        if scenario.books is not None:
            return shop_books(scenario.books, base_url, self.books, self.books_redis, self.tls)
        if scenario.target.is_own:
            return None  # a stack that runs here is another's
        stores = _stores_if_known(state_dir, self.ledger, self.cache, self.mysql)
        if stores is not None and (self.ledger or self.mysql):
            _greet(stores)
        return stores


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


# Before a storm ----------------------------------------------------------------------------------

target_command = typer.Typer(
    help="Somebody's shop: what a file of it says, and what is understood."
)


@target_command.callback(invoke_without_command=True)
def _root(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


@target_command.command("check")
def check(
    shop: Annotated[str, typer.Argument(help="The .toml of the shop, or a preset's name.")],
    voucher: Annotated[int, typer.Option(help="What is claimed.", min=1)] = 1,
    tokens: Annotated[
        Path | None,
        typer.Option(help="The users' file.", show_default=f"{TOKENS} in the state folder"),
    ] = None,
    base_url: BaseUrl = None,
    state_dir: StateDir = DEFAULT_STATE_DIR,
    books_url: BooksUrl = None,
    books_redis_url: BooksRedisUrl = None,
    ca: CaFile = None,
    cert: CertFile = None,
    key: KeyFile = None,
    insecure: Insecure = False,
) -> None:
    """Send one request of each kind as the first user, and show what was understood.

    It is a real claim: a unit may be sold. The books are read before and after it, and nothing is
    written there. Exits with 2 where an answer was not understood, or the books are not as the file
    says, with 7 where they cannot be reached; nothing is sold then.
    """
    scenario = scenario_to_try(shop, voucher)
    where = find_base_url(state_dir, base_url)
    tls = tls_of(ca, cert, key, insecure)
    mission = mission_to_try(scenario, where, tokens or state_dir / TOKENS, tls)
    kept = None
    if scenario.books is not None:
        kept = shop_books(scenario.books, where, books_url, books_redis_url, tls)
        _, trouble = try_books(kept, voucher)
        if trouble is not None:
            _end_unread(trouble)
    tried = list(try_steps(mission))
    for each in tried:
        tell(str(each))
    unread = [each for each in tried if not each.is_understood]
    trouble = None
    if kept is not None:
        lines, trouble = try_books(kept, voucher, tried)
        for line in lines:
            tell(f"books: {line}")
    for each in unread:
        tell(f"not understood: {each.step}; {each.cure}", err=True)
    if trouble is not None:
        _end_unread(trouble)
    if unread:
        raise typer.Exit(ExitCode.USAGE)


def _end_unread(trouble: FlashsaleError) -> NoReturn:
    tell(f"books: not read: {trouble}", err=True)
    is_away = isinstance(trouble, UnreachableError)
    raise typer.Exit(ExitCode.UNREACHABLE if is_away else ExitCode.USAGE)
