"""`flashsale serve`: a whole sale on this machine, kept up until it is told to stop."""

import os
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flashsale.cli.options import DEFAULT_STATE_DIR, CacheUrl, LedgerUrl, MySQLUrl, StateDir

if TYPE_CHECKING:
    from flashsale.stack.settings import ExternalStores, StackSettings

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
Detach = Annotated[
    bool, typer.Option("--detach", "-d", help="Return when it is ready; `flashsale stop` ends it.")
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
    observe: Observe = False,
    detach: Detach = False,
) -> None:
    """Start what is missing (Redis ×2, MariaDB, replicas, workers, nginx) and keep it up."""
    from flashsale.settings import check_environment
    from flashsale.stack.settings import ExternalStores, StackSettings

    check_environment()  # or a replica would say so, in its log, after all else has started
    given = {
        "port": port,
        "host": host,
        "replicas": replicas,
        "workers": workers,
        "probe_interval_s": probe_interval,
        "observe": observe or None,  # not given: as the environment says
    }
    settings = StackSettings.load(**given)
    external = ExternalStores(ledger_url or None, cache_url or None, mysql_url or None)
    if detach:
        _detach(state_dir, given, external)
    else:
        _serve(state_dir, settings, external)


def _serve(state_dir: Path, settings: "StackSettings", external: "ExternalStores") -> None:
    from flashsale.cli.stack_view import LiveWatcher, PlainWatcher
    from flashsale.stack.stack import Stack
    from flashsale.stack.supervisor import Supervisor

    with LiveWatcher() if sys.stdout.isatty() else PlainWatcher() as watcher:
        code = Supervisor(Stack(settings, state_dir, external), watcher).run()
    raise typer.Exit(code)


def _detach(state_dir: Path, given: Mapping[str, object], external: "ExternalStores") -> None:
    """Hand everything on through the environment: a URL's password is nobody's to see in `ps`."""
    from flashsale.stack.launch import start_detached

    environment = {f"FLASHSALE_STACK_{name.upper()}": value for name, value in given.items()}
    environment |= {f"FLASHSALE_{name.upper()}": url for name, url in asdict(external).items()}
    os.environ.update(
        {name: str(value) for name, value in environment.items() if value is not None}
    )
    state = start_detached(state_dir)
    typer.echo(f"ready at {state.base_url} (process {state.pid}, state in {state_dir})")
