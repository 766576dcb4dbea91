"""`flashsale panels`: what every panel of every dashboard shows of an observed stack."""

import time
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Annotated

import typer
from rich.table import Table

from flashsale.campaign.stores import DEFAULT_STATE_DIR
from flashsale.cli.options import Json, StateDir
from flashsale.cli.terminal import console, tell_document
from flashsale.errors import ExitCode, UnreachableError
from flashsale.observe import panels
from flashsale.observe.panels import Filled
from flashsale.stack.state import StackState, read_state

_PATIENCE_S = 15.0
_PAUSE_S = 1.0


def command(
    state_dir: StateDir = DEFAULT_STATE_DIR,
    prometheus_url: Annotated[
        str | None, typer.Option(help="Another Prometheus, such as that of Compose.")
    ] = None,
    minutes: Annotated[
        float | None,
        typer.Option(min=0.1, help="How far to look back.", show_default="the stack's life, 30"),
    ] = None,
    json: Json = False,
) -> None:
    """Run each panel's queries on the stack's Prometheus: exit 8 where one finds nothing."""
    window_s = 60 * (minutes or 30)
    if prometheus_url is None:
        state = read_state(state_dir)
        if state is None:
            raise UnreachableError(
                f"no stack runs in {state_dir}; start one with `flashsale serve --observe`"
            )
        prometheus_url = panels.prometheus_url(state)
        if minutes is None:
            window_s = age_s(state)
    filled = panels.fill(prometheus_url, panels.queries(), window_s)
    _print_json(filled) if json else print_table(filled)
    if not all(each.samples for each in filled):
        raise typer.Exit(ExitCode.NOTHING_JUDGED)


def show_when_filled(state: StackState) -> None:
    """Print the table once every panel shows something, or after a while what there is."""
    url, wanted = panels.prometheus_url(state), panels.queries()
    give_up = time.monotonic() + _PATIENCE_S
    while True:
        filled = panels.fill(url, wanted, age_s(state))
        if all(each.samples for each in filled) or time.monotonic() > give_up:
            return print_table(filled)
        time.sleep(_PAUSE_S)


def age_s(state: StackState) -> float:
    """How long the stack has been up."""
    started = datetime.fromisoformat(state.started_at)
    return (datetime.now(UTC) - started).total_seconds()


def print_table(filled: Sequence[Filled]) -> None:
    """Dashboard, panel, query, series and samples; what found nothing stands out."""
    empty = [each for each in filled if not each.samples]
    drawn = Table(title=_title(filled, len(empty)), title_justify="left")
    for heading in ("dashboard", "panel", "query"):
        drawn.add_column(heading)
    for heading in ("series", "samples", "highest"):
        drawn.add_column(heading, justify="right")
    for each in filled:
        texts = (each.query.dashboard, each.query.panel, each.query.legend)
        style = None if each.samples else "red"
        drawn.add_row(
            *texts,
            f"{each.series:,}",
            f"{each.samples:,}",
            "-" if each.highest is None else f"{each.highest:.4g}",
            style=style,
        )
    console().print(drawn)


def _title(filled: Sequence[Filled], empty: int) -> str:
    shown = {(each.query.dashboard, each.query.panel) for each in filled}
    boards = {each.query.dashboard for each in filled}
    found = f"{empty} found nothing" if empty else "each found something"
    return f"{len(boards)} dashboards, {len(shown)} panels, {len(filled)} queries: {found}"


def _print_json(filled: Sequence[Filled]) -> None:
    rows = [asdict(each) for each in filled]
    tell_document(rows)
