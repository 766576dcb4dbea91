"""`flashsale rendezvous`: where the shards of one storm meet. Apart from `storm`, which would load
SQLAlchemy and the HTTP server with it."""

from typing import Annotated

import typer

from flashsale.campaign.campaign import DEFAULT_STATE_DIR, TOKENS, find_base_url
from flashsale.campaign.judging import only_thresholds, requiring
from flashsale.campaign.rendezvous import MeetingPlace, run_rendezvous
from flashsale.campaign.storming import StormRequest
from flashsale.cli.options import (
    BaseUrl,
    BooksRedisUrl,
    BooksUrl,
    CacheUrl,
    LedgerUrl,
    MySQLUrl,
    StateDir,
    TargetFile,
)
from flashsale.cli.storm import NamedStores, end
from flashsale.cli.storm_options import (
    Baseline,
    Csv,
    MaxRegress,
    Out,
    Quiet,
    Replay,
    Require,
    ScenarioName,
    Tokens,
    chosen,
    doubtful,
    earlier,
    required,
)
from flashsale.cli.terminal import TerminalTeller
from flashsale.storm.crew.shard import SHARDS_MAX


def command(
    shards: Annotated[
        int,
        typer.Option(
            help="How many shards there are to be.",
            envvar="FLASHSALE_SHARDS",
            min=1,
            max=SHARDS_MAX,
            rich_help_panel="Machines",
        ),
    ],
    scenario: ScenarioName = None,
    replay: Replay = None,
    tokens: Tokens = None,
    target: TargetFile = None,
    require: Require = None,
    baseline: Baseline = None,
    max_regress: MaxRegress = None,
    out: Out = None,
    csv: Csv = False,
    quiet: Quiet = False,
    host: Annotated[
        str, typer.Option(help="The address to listen on.", rich_help_panel="Machines")
    ] = "127.0.0.1",
    port: Annotated[
        int,
        typer.Option(min=0, max=65535, help="The port; 0: any.", rich_help_panel="Machines"),
    ] = 9200,
    base_url: BaseUrl = None,
    state_dir: StateDir = DEFAULT_STATE_DIR,
    ledger_url: LedgerUrl = None,
    cache_url: CacheUrl = None,
    mysql_url: MySQLUrl = None,
    books_url: BooksUrl = None,
    books_redis_url: BooksRedisUrl = None,
) -> None:
    """Have a storm fired by several machines at one instant, and make one run of it.

    Waits for all shards (`flashsale storm --rendezvous URL --shard K/N`), ships scenario, plan and
    tokens, compares clocks, tells the instant, takes the records, judges the whole and exits as one
    storm would. A shard that fails leaves an invalid run that names it.
    """
    planned, plan = chosen(scenario, replay, target)
    loaded = requiring(planned, only_thresholds(required(require, None)))
    teller = TerminalTeller("rendezvous", quiet)
    for doubt in doubtful(loaded.thresholds[len(planned.thresholds) :]):
        teller.say(doubt)
    where = find_base_url(state_dir, base_url)
    named = NamedStores(ledger_url, cache_url, mysql_url, books_url, books_redis_url)
    request = StormRequest(
        scenario=loaded,
        plan=plan,
        base_url=where,
        tokens=tokens or state_dir / TOKENS,
        stores=named.stores(loaded, where, state_dir),
        state_dir=state_dir,
        out=out,
        baseline=earlier(loaded, baseline, max_regress),
        csv=csv,
    )
    end(run_rendezvous(request, MeetingPlace(shards, host, port), teller))
