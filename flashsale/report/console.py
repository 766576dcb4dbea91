"""A run in the terminal: a table that a person reads at a glance, and two runs side by side."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group, JustifyMethod
from rich.measure import Measurement
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from flashsale.errors import ExitCode
from flashsale.model import Doing, Ending, Outcome, Reading, Signing, Verdict, ending
from flashsale.report.wording import (
    amount,
    crowd,
    headroom_line,
    ms,
    plural,
    remarks,
    said_line,
    share,
)
from flashsale.run.parts import Health, Latency, ReadFigures, WorkerFigures
from flashsale.run.summary import Comparison, EndpointSummary, LatencyFigures, Summary
from flashsale.scenario.load import Step

_COLOURS = {
    Verdict.PASS: "green",
    Verdict.FAIL: "red",
    Verdict.INVALID: "yellow",
    Verdict.UNKNOWN: "yellow",
}


def _styled(verdict: Verdict) -> Text:
    """In capitals and its colour."""
    return Text(verdict.upper(), style=f"bold {_COLOURS[verdict]}")


def print_comparison(console: Console, found: Comparison, run: str = "") -> None:
    """Each figure of the earlier run, of this one (or of `run`), and what became of it."""
    title = f"{run} against {found.run}, at most {100 * found.max_regress:.10g} % worse"
    lines = [Text(title.strip(), style="dim")]
    lines += [Text(f"differs: {warning}", style="yellow") for warning in found.warnings]
    console.print(Padding(Group(*lines), (1, 0, 0, 2)))
    console.print(_changes(found))


def _changes(found: Comparison) -> Table:
    table = Table(box=SIMPLE_HEAD, header_style="dim")
    for name in ("figure", "before", "now", "change", ""):
        side: JustifyMethod = "right" if name in ("before", "now") else "left"
        table.add_column(name, justify=side, overflow="fold")
    for change in found.changes:
        before, now = (amount(value, change.unit) for value in (change.before, change.after))
        table.add_row(change.metric, before, now, change.detail, _styled(change.verdict))
    return table


_DISPENSABLE = ("p99.9", "p90", "share")
"""Columns that go where a terminal is narrow, in this order; the files have them all."""

_ANY_WIDTH = 1_000
SAID_SHOWN = 5
_QUANTILES = {"p50": 50.0, "p90": 90.0, "p99": 99.0, "p99.9": 99.9}


def print_summary(
    console: Console, summary: Summary, folder: Path, *, interim: bool = False
) -> None:
    """The whole run: outcomes and latencies, thresholds, checks, generator, verdict.

    An interim one has no verdict: it is about to be drawn.
    """
    console.print()
    console.print(_heading(summary))
    console.print(_fitting(console, _outcomes(summary)))
    if summary.load.errors:
        console.print(Padding(_errors(summary), (0, 0, 1, 2)))
    if summary.thresholds or summary.aborts:
        console.print(_thresholds(summary))
    if summary.rules:
        console.print(_checks(summary))
    if summary.baseline is not None:
        print_comparison(console, summary.baseline)
    console.print(Padding(_closing(summary, folder, interim), (0, 0, 1, 2)))


def _heading(summary: Summary) -> Padding:
    load = summary.load
    text = Text.assemble((f"{summary.scenario}  ", "bold"), (summary.question, "italic"), "\n")
    text.append(
        f"{crowd(load)} over {plural(load.connections, 'connection')}"
        f"{' (closed)' if load.closed else ''}, seed {summary.seed}, "
        f"{load.duration_s:.2f} s, {load.rate_per_s:,.0f} answers/s, {summary.base_url}",
        style="dim",
    )
    return Padding(text, (0, 0, 0, 2))


def _fitting(console: Console, table: Table) -> Table:
    """The table without the columns that a narrow terminal has no room for."""
    unbounded = console.options.update_width(_ANY_WIDTH)
    for name in _DISPENSABLE:
        if Measurement.get(console, unbounded, table).maximum <= console.width:
            break
        table.columns = [column for column in table.columns if column.header != name]
    return table


def _outcomes(summary: Summary) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=True, header_style="dim")
    table.add_column("", overflow="fold")
    table.add_column("attempts", justify="right")
    table.add_column("share", justify="right")
    for name in (*_QUANTILES, "max"):
        table.add_column(f"{name} ms" if name == "p50" else name, justify="right")
    if len(summary.endpoints) > 1:
        for endpoint, found in summary.endpoints.items():
            _add_endpoint(table, f"{endpoint} ", found)
        return table
    load, figures = summary.load, summary.latency_ms
    _add_outcomes(table, "", load.outcomes, load.planned, figures.by_outcome)
    _add_clocks(table, "", figures)
    return table


def _add_endpoint(table: Table, prefix: str, found: EndpointSummary) -> None:
    _add_outcomes(table, prefix, found.outcomes, found.planned, found.by_outcome)
    _add_clocks(table, prefix, found)


def _add_outcomes(
    table: Table,
    prefix: str,
    outcomes: Mapping[str, int],
    planned: int,
    latencies: Mapping[str, Latency],
) -> None:
    for name, count in outcomes.items():
        latency = latencies.get(name)
        table.add_row(
            Text(prefix + name.replace("_", " "), style=_outcome_style(ending(name))),
            f"{count:,}",
            share(count, planned),
            *(_cells(latency, 0) if latency else ["–"] * (len(_QUANTILES) + 1)),
        )
    table.add_section()


def _add_clocks(table: Table, prefix: str, found: LatencyFigures | EndpointSummary) -> None:
    clocks = {"response": found.response, "service": found.service}
    for name, latency in clocks.items():
        cells = _cells(latency, found.censored)
        table.add_row(Text(prefix + name, style="bold"), f"{latency.count:,}", "", *cells)
    if isinstance(found, LatencyFigures) and found.persisted and found.persisted.count:
        cells = _cells(found.persisted, 0)
        table.add_row(Text("persisted", style="bold"), f"{found.persisted.count:,}", "", *cells)
    table.add_section()


def _outcome_style(outcome: Ending) -> str:
    if outcome in (Outcome.SOLD, Reading.HIT, Signing.SIGNED, Doing.DONE):
        return "green"
    return "" if outcome.is_expected else "yellow"


def _cells(latency: Latency, censored: int) -> list[str]:
    """The percentiles; where attempts that were given up on reach into one, it is a bound."""
    values = latency.model_dump(by_alias=True)
    known_percent = 100 * (1 - censored / latency.count) if latency.count else 100.0
    cells = []
    for name, percentile in (*_QUANTILES.items(), ("max", 100.0)):
        bound = "≥ " if percentile > known_percent and values[name] is not None else ""
        cells.append(f"{bound}{ms(values[name])}")
    return cells


def _errors(summary: Summary) -> Text:
    load = summary.load
    listed = ", ".join(f"{name} {count:,}" for name, count in load.errors.items())
    text = Text(f"errors: {listed}", style="yellow")
    if load.indeterminate:
        text.append(
            f"\n{load.resolved:,} of {plural(load.indeterminate, 'indeterminate attempt')} "
            f"resolved through the status route, {load.late:,} of them sold"
        )
    for said in load.said[:SAID_SHOWN]:
        text.append(f"\n{said.count:,} × {said_line(said)}", style="dim")
    if len(load.said) > SAID_SHOWN:
        text.append("\nsummary.json (load.said) and the report show more", style="dim")
    return text


def _thresholds(summary: Summary) -> Table:
    table = Table(box=SIMPLE_HEAD, header_style="dim")
    for name in ("threshold", "demanded", "found", ""):
        table.add_column(name, overflow="fold")
    for figure in summary.thresholds:
        table.add_row(figure.metric, figure.condition, figure.detail, _styled(figure.verdict))
    for figure in summary.aborts:
        metric = f"abort if {figure.metric}"
        table.add_row(metric, figure.condition, figure.detail, _styled(figure.verdict))
    return table


def _checks(summary: Summary) -> Table:
    table = Table(box=SIMPLE_HEAD, header_style="dim")
    for name in ("check", "", "detail"):
        table.add_column(name, overflow="fold")
    for check in summary.rules:
        table.add_row(check.name, _styled(check.verdict), Text(check.detail))
    return table


def _closing(summary: Summary, folder: Path, interim: bool) -> Table:
    rows = Table.grid(padding=(0, 2))
    rows.add_column(no_wrap=True)
    rows.add_column(overflow="fold")
    rows.add_row("generator", _generator(summary))
    if summary.generator.calibration is not None:
        rows.add_row("", headroom_line(summary.generator.calibration))
    if summary.generator.workers:
        rows.add_row("", _workers(summary.generator.workers))
    for line in (*summary.generator.complaints, *summary.generator.doubts):
        rows.add_row("", Text(line, style="yellow"))
    for hint in summary.hints:
        rows.add_row("hint", Text(hint, style="yellow"))
    if summary.load.interrupted_by is not None:
        rows.add_row("", Text("interrupted: what stands here is a part", style="yellow"))
    if summary.reads is not None:
        rows.add_row("reads", _reads(summary.reads))
    if summary.aborted:
        rows.add_row("", Text("aborted: what stands here is a part", style="yellow"))
    if (database := summary.database) is not None:
        asked = f"{plural(database.shops, 'shop')} and {plural(database.unknown, 'unknown id')}"
        rows.add_row("database", f"{plural(database.loads, 'load')} for {asked}")
    for number, remark in enumerate(remarks(summary.sale) if summary.sale else []):
        name = "" if number else "sale"
        rows.add_row(name, Text(remark.text, style="yellow" if remark.odd else ""))
    orders = summary.orders
    if orders.persisted is not None:
        drain = "" if orders.drain_s is None else f", drained in {orders.drain_s:.1f} s"
        rows.add_row("orders", f"{orders.accepted:,} accepted, {orders.persisted:,} rows{drain}")
    if summary.shard is not None:
        part = f"shard {summary.shard.number} of {summary.shard.of}"
        rows.add_row("", f"{part}: `flashsale report merge RUN…` puts all of them together")
    if summary.merged is not None:
        met = any(shard.clock_error_ms is not None for shard in summary.merged.shards)
        clocks = "the clock of their rendezvous" if met else "their own clocks"
        spread = f"barriers {summary.merged.barrier_spread_ms:.1f} ms apart by {clocks}"
        rows.add_row("merged", f"{plural(len(summary.merged.shards), 'shard')}, {spread}")
        for caveat in summary.merged.caveats:
            rows.add_row("", Text(caveat, style="dim"))
    rows.add_row("plan", summary.plan_hash)
    if summary.load.spared:
        rows.add_row("", f"{summary.load.spared:,} planned for a case that did not come")
    if not interim:
        rows.add_row("verdict", _verdict_line(summary))
    rows.add_row("run", str(folder))
    return rows


def _reads(reads: ReadFigures) -> str:
    """What issue and operators ask of a cache, the same four in every run; the rest if any."""
    ratio = "–" if reads.hit_ratio is None else f"{reads.hit_ratio:.2%}"
    counts = {"loads": reads.loads, "stale": reads.stale, "rejected": reads.rejected}
    rare = {"waited for a load": reads.waits, "known absent": reads.nulls}
    counts |= {name: count for name, count in rare.items() if count}
    return ", ".join([f"hit ratio {ratio}", *(f"{n:,} {name}" for name, n in counts.items())])


def _generator(summary: Summary) -> Text:
    generator = summary.generator
    valid = generator.verdict is Health.VALID
    text = Text(generator.verdict.upper(), style="green" if valid else "bold yellow")
    facts = [f"{generator.cpu_share:.0%} of a core"]
    if generator.cpu_us_per_request is not None:
        facts.insert(0, f"{generator.cpu_us_per_request:.1f} µs CPU a request")
    lag = generator.start_lag_ms
    if lag.count:
        facts.append(f"start lag p50 {ms(lag.p50)} max {ms(lag.max)} ms")
    if generator.loop_lag_ms.count:
        facts.append(f"loop lag max {ms(generator.loop_lag_ms.max)} ms")
    return text.append("  " + ", ".join(facts), style="default")


def _workers(workers: Sequence[WorkerFigures]) -> Text:
    """All at a glance; summary.json has each by itself."""
    kind = workers[0].name.partition(" ")[0]  # worker or shard
    shares = [worker.cpu_share for worker in workers]
    lags = [worker.loop_lag_ms.max or 0.0 for worker in workers]
    return Text(
        f"{plural(len(workers), kind)}: {min(shares):.0%} to {max(shares):.0%} of a core each, "
        f"loop lag max {ms(min(lags))} to {ms(max(lags))} ms"
    )


def _verdict_line(summary: Summary) -> Text:
    text = _styled(summary.verdict)
    verify = summary.verify
    unverified = not verify.checks and verify.reason is not None and _sells(summary)
    unverified = unverified and summary.shard is None  # `report merge` comes first
    if verify.awaited and summary.exit_code == ExitCode.NOTHING_JUDGED:
        return text.append("  the sale is not verified yet", style="not bold")
    if summary.exit_code:
        name = ExitCode(summary.exit_code).name.lower().replace("_", " ")
        text.append(f"  exit {summary.exit_code}, {name}", style="not bold")
    elif summary.shard is not None:
        text.append("  of this shard's load", style="not bold")
    elif unverified:
        text.append("  of the load alone", style="not bold")
    if unverified and verify.awaited:
        text.append("\nthe sale is not verified: the rehearsal ended before", style="yellow")
    elif unverified:
        text.append("\nthe sale is not verified yet: `flashsale verify` judges it", style="yellow")
    return text


def _sells(summary: Summary) -> bool:
    return summary.load.asked == "claims" or Step.BUY.endpoint in summary.endpoints
