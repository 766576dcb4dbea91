"""`flashsale serve`: a whole sale on this machine, kept up until it is told to stop."""

import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Annotated, Self

import typer
from rich.live import Live
from rich.table import Table
from rich.text import Text

from flashsale.campaign.campaign import DEFAULT_STATE_DIR
from flashsale.cli.machine import Row, table
from flashsale.cli.options import CacheUrl, Durable, LedgerUrl, MySQLUrl, StateDir
from flashsale.cli.terminal import console, tell
from flashsale.doctor import findings
from flashsale.doctor.machine import insist_on_descriptors
from flashsale.errors import one_line
from flashsale.model import Durability
from flashsale.observe.prometheus import PrivateObservers
from flashsale.settings import check_environment
from flashsale.stack.settings import ExternalStores, StackSettings, stack_settings
from flashsale.stack.stack import Stack
from flashsale.stack.state import start_detached
from flashsale.stack.supervisor import Supervisor

# The defaults are those of StackSettings; a test holds the two together.
Port = Annotated[
    int | None,
    typer.Option(min=0, max=65_535, help="nginx's port; 0 takes a free one.", show_default="8080"),
]
Host = Annotated[
    str | None, typer.Option(help="The address that nginx listens on.", show_default="127.0.0.1")
]
Replicas = Annotated[
    int | None, typer.Option(min=1, max=64, help="HTTP processes behind nginx.", show_default="3")
]
Workers = Annotated[
    int | None, typer.Option(min=1, max=64, help="Order workers.", show_default="1")
]
ProbeInterval = Annotated[
    float | None, typer.Option(min=0.1, help="Seconds between health probes.", show_default="30")
]
Ha = Annotated[
    bool,
    typer.Option(
        "--ha", help="The ledger with a replica, and three Sentinels that fail over to it."
    ),
]
Detach = Annotated[
    bool, typer.Option("--detach", "-d", help="Return when it is ready; `flashsale stop` ends it.")
]
Clustered = Annotated[
    bool,
    typer.Option("--cluster", help="The private ledger as a Redis Cluster of six nodes."),
]
Observe = Annotated[
    bool,
    typer.Option(
        "--observe", help="Prometheus and exporters beside it (`services install --observe`)."
    ),
]


def command(
    state_dir: StateDir = DEFAULT_STATE_DIR,
    port: Port = None,
    host: Host = None,
    replicas: Replicas = None,
    workers: Workers = None,
    probe_interval: ProbeInterval = None,
    ledger_url: LedgerUrl = None,
    cache_url: CacheUrl = None,
    mysql_url: MySQLUrl = None,
    durability: Durable = None,
    cluster: Clustered = False,
    ha: Ha = False,
    observe: Observe = False,
    detach: Detach = False,
) -> None:
    """Start what is missing (Redis ×2, MariaDB, replicas, workers, nginx) and keep it up."""
    check_environment()  # or a replica would say so, in its log, after all else has started
    given = {
        "port": port,
        "host": host,
        "replicas": replicas,
        "workers": workers,
        "probe_interval_s": probe_interval,
        "durability": durability,
        "cluster": cluster or None,
        "ha": ha or None,
        "observe": observe or None,  # not given: as the environment says
    }
    external = ExternalStores(ledger_url or None, cache_url or None, mysql_url or None)
    settings = stack_settings(external, **given)
    if detach:
        _detach(state_dir, given, external)
    else:
        _serve(state_dir, settings, external)


def _serve(state_dir: Path, settings: StackSettings, external: ExternalStores) -> None:
    observers = PrivateObservers(settings.observe_interval_s) if settings.observe else None
    demand = partial(insist, durability=settings.durability)
    stack = Stack(settings, state_dir, external, insist=demand, observers=observers)
    with LiveWatcher() if sys.stdout.isatty() else PlainWatcher() as watcher:
        code = Supervisor(stack, watcher).run()
    raise typer.Exit(code)


def insist(stores: ExternalStores, durability: Durability = Durability.ALWAYS) -> None:
    """See that this machine and the stores of others do for a sale of this `durability`.

    Raises UsageError where the machine has too few descriptors, UnreachableError for a store.
    """
    insist_on_descriptors()
    urls = (stores.ledger_url, stores.cache_url, stores.mysql_url)
    findings.insist(findings.examine(*urls, durability=durability))


def _detach(state_dir: Path, given: Mapping[str, object], external: ExternalStores) -> None:
    """Hand everything on through the environment: a URL's password is nobody's to see in `ps`."""
    told = {f"FLASHSALE_STACK_{name.upper()}": value for name, value in given.items()}
    told |= {f"FLASHSALE_{name.upper()}": url for name, url in asdict(external).items()}
    named = {name: str(value) for name, value in told.items() if value is not None}
    wait = Text(f"starting a stack; {state_dir / 'logs/serve.log'} tells how far it is")
    with console(err=True).status(wait):  # on a terminal alone
        state = start_detached(state_dir, environment=os.environ | named)
    tell(f"ready at {state.base_url} (process {state.pid}, state in {state_dir})")


class PlainWatcher:
    """One line per event, with its time; for logs and pipes."""

    def say(self, line: str) -> None:
        with suppress(OSError):  # the terminal is gone; the stack still is to be stopped
            tell(f"{datetime.now():%H:%M:%S} {line}")

    def show(self, stack: Stack) -> None:
        """The events have said it."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing was put up that has to be taken down."""


class LiveWatcher(PlainWatcher):
    """A table that is drawn anew when something changes, with the events above it."""

    def __init__(self) -> None:
        self._live: Live | None = None

    def say(self, line: str) -> None:
        if self._live is None:
            super().say(line)
            return
        with suppress(OSError):
            line = one_line(f"{datetime.now():%H:%M:%S} {line}")
            self._live.console.print(line, highlight=False)

    def show(self, stack: Stack) -> None:
        rows = [
            Row(
                member.service.name,
                member.service.kind,
                member.phase,
                member.service.process.pid if member.service.process else 0,
                member.service.place.number,
                member.restarts,
            )
            for member in stack.members
        ]
        drawn = table(f"{stack.base_url}  (Ctrl-C stops)", rows)
        with suppress(OSError):
            if self._live is None:
                self._live = _live(drawn)
            self._live.update(drawn, refresh=True)

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            with suppress(OSError):
                self._live.stop()


def _live(drawn: Table) -> Live:
    # No thread: it draws when it is told to. In the end the events stay, the table goes.
    live = Live(drawn, console=console(), auto_refresh=False, transient=True)
    live.start()
    return live
