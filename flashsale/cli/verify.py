"""`flashsale verify`: judge a run by its attempts and by what Redis and MySQL hold."""

import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flashsale.cli.options import (
    LedgerUrl,
    MySQLUrl,
    RunStateDir,
    Stores,
    find_stores,
    stack_of,
)
from flashsale.cli.workflow import tell_workflow
from flashsale.errors import ExitCode, NothingJudgedError, UsageError
from flashsale.run.folder import ATTEMPTS_FILE, LATEST_RUN, SUMMARY_FILE, VERIFY_FILE
from flashsale.verify import DRAIN_TIMEOUT_S

if TYPE_CHECKING:
    from collections.abc import Callable

    from flashsale.model import Verdict
    from flashsale.run.summary import Summary
    from flashsale.verify.verdict import Judgement


def command(
    run: Annotated[Path, typer.Argument(help="The folder of a storm's run.")] = LATEST_RUN,
    drain_timeout: Annotated[
        float, typer.Option(help="Seconds that the order queue may stand still.", min=0)
    ] = DRAIN_TIMEOUT_S,
    as_json: Annotated[bool, typer.Option("--json", help="Print the judgement as JSON.")] = False,
    state_dir: RunStateDir = None,
    ledger_url: LedgerUrl = None,
    mysql_url: MySQLUrl = None,
) -> None:
    """Judge a run: nothing oversold, nothing sold twice, nothing lost, nobody told a lie.

    Reads the storm's record, Redis and MySQL, and writes to neither. Exits with 3 where a rule is
    broken, naming every order that breaks it, and with 8 where nothing could be judged.
    """
    if not math.isfinite(drain_timeout):
        raise UsageError(f"--drain-timeout: expected seconds, got {drain_timeout}")
    if not (run / ATTEMPTS_FILE).is_file():
        raise NothingJudgedError(f"{run}: no attempts to judge; name the folder of a storm's run")
    # The cache is none of verify's business, so whoever names the other two has named enough.
    stores = find_stores(stack_of(run, state_dir), ledger_url, ledger_url, mysql_url)
    judgement = run_verify(run, stores, drain_timeout)
    if as_json:
        import orjson

        typer.echo(orjson.dumps(judgement.to_json(), option=orjson.OPT_INDENT_2))
    else:
        from rich.console import Console

        from flashsale.cli.verdict_view import show

        show(judgement, Console(), *run_verdict(run, judgement))
    render(run)
    raise typer.Exit(run_verdict(run, judgement)[1])


def run_verify(
    run_dir: Path, stores: Stores, drain_timeout_s: float = DRAIN_TIMEOUT_S
) -> "Judgement":
    """Judge the run in `run_dir`, and put what was found into its files.

    Raises NothingJudgedError where there is no record to judge, UnreachableError where a store
    does not answer.
    """
    from flashsale.verify.examination import examine

    with _shown() as on_look:
        judgement = examine(
            run_dir,
            stores.ledger_url,
            stores.mysql_url,
            drain_timeout_s=drain_timeout_s,
            on_look=on_look,
        )
    _record(run_dir, judgement)
    return judgement


def run_verdict(run_dir: Path, judgement: "Judgement") -> "tuple[Verdict, ExitCode]":
    """What the whole run amounts to, for which its own failings count beside the judgement."""
    summary = _read_summary(run_dir)
    if summary is None:
        return judgement.verdict, judgement.exit_code
    return summary.verdict, ExitCode(summary.exit_code)


def _record(run_dir: Path, judgement: "Judgement") -> None:
    import orjson

    document = judgement.to_json()
    draft = run_dir / f".{VERIFY_FILE}"
    draft.write_bytes(orjson.dumps(document, option=orjson.OPT_INDENT_2) + b"\n")
    draft.replace(run_dir / VERIFY_FILE)
    summary = _read_summary(run_dir)
    if summary is None:
        typer.echo("verify: no summary.json of this version, so only verify.json tells", err=True)
        return
    summary.with_verify(document).write(run_dir / SUMMARY_FILE)


def render(run_dir: Path) -> None:
    """Draw the run's reports again, now that there is a judgement to put into them."""
    summary = _read_summary(run_dir)
    if summary is not None:
        from flashsale.report.files import write_reports
        from flashsale.run.folder import RunFolder

        write_reports(RunFolder(run_dir), summary)
        tell_workflow(summary)


def _read_summary(run_dir: Path) -> "Summary | None":
    """The storm's summary, None where it did not live to write one that can be read."""
    from flashsale.run.summary import Summary

    try:
        return Summary.read(run_dir / SUMMARY_FILE)
    except (OSError, ValueError):
        return None


@contextmanager
def _shown() -> "Iterator[Callable[[int], None]]":
    """On a terminal, how many orders the judge still waits for."""
    if not sys.stderr.isatty():
        yield lambda left: None
        return
    from rich.console import Console

    with Console(stderr=True).status("reading the stores") as status:
        yield lambda left: status.update(
            f"waiting for {left:,} orders to become rows" if left else "reading the stores"
        )
