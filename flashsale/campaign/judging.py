"""What a run is held to beyond its scenario: thresholds, conditions that end it, a baseline, checks
that have to have met what they guard; and judging it, whose verdict goes into its files.

What is demanded is read before anything is sent.
"""

import os
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from fractions import Fraction
from pathlib import Path

import orjson

from flashsale.books import ShopBooks
from flashsale.campaign.campaign import SILENT, JudgedRun, Stores, Teller
from flashsale.errors import UsageError
from flashsale.report.compare import compare, ensure_comparable
from flashsale.report.files import read_run, write_reports
from flashsale.run.folder import VERIFY_FILE, RunFolder, as_text, telling, write_file
from flashsale.run.summary import Summary
from flashsale.scenario.scenario import Scenario
from flashsale.scenario.thresholds import Threshold, parse_expression
from flashsale.storm.crew.shard import Shard
from flashsale.storm.figures.judging import parse_abort
from flashsale.verify.shop import examine_shop
from flashsale.verify.verdict import DRAIN_TIMEOUT_S, RULES, examine

REQUIRE = "--require"
EXERCISED = "exercised:"
"""What demands of verify that a check has met what it guards begins with."""

ABORT_IF = "--abort-if"
MAX_REGRESS = "15%"
_PERCENT = re.compile(r"\s*([0-9]{1,6}(?:\.[0-9]+)?)\s*%\s*")


def requiring(scenario: Scenario, expressions: Sequence[str]) -> Scenario:
    """The scenario with these thresholds, too. Raises UsageError with one line."""
    if not expressions:
        return scenario
    demanded = tuple(_threshold(scenario, text) for text in expressions)
    return scenario.model_copy(update={"thresholds": scenario.thresholds + demanded})


def _threshold(scenario: Scenario, text: str) -> Threshold:
    try:
        threshold = parse_expression(text, REQUIRE)
    except ValueError as error:
        raise UsageError(str(error)) from error
    if trouble := scenario.no_samples(threshold):
        raise UsageError(f"{REQUIRE}: {trouble}")
    return threshold


def exercising(expressions: Sequence[str]) -> tuple[list[str], tuple[str, ...]]:
    """Thresholds of the run, and checks that have to have met what they guard, each apart.

    Raises UsageError with one line where there is no such check.
    """
    thresholds = [text for text in expressions if not text.strip().startswith(EXERCISED)]
    asked = [text.strip() for text in expressions if text.strip().startswith(EXERCISED)]
    checks = tuple(text.removeprefix(EXERCISED).strip() for text in asked)
    for check in checks:
        if check not in RULES:
            close = get_close_matches(check, RULES, n=1)
            hint = f", did you mean {close[0]!r}?" if close else f"; there are {', '.join(RULES)}"
            raise UsageError(f"{REQUIRE}: no check {check!r}{hint}")
    return thresholds, checks


def only_exercising(expressions: Sequence[str]) -> tuple[str, ...]:
    """The checks that `verify` is to require. Raises UsageError for anything else."""
    thresholds, checks = exercising(expressions)
    for text in thresholds:
        raise UsageError(
            f"{REQUIRE}: found {text!r}, expected such as '{EXERCISED}{RULES[0]}'; "
            "thresholds are demanded of `flashsale storm`"
        )
    return checks


def only_thresholds(expressions: Sequence[str]) -> list[str]:
    """The thresholds of a storm that nobody verifies with it. Raises UsageError for the rest."""
    thresholds, checks = exercising(expressions)
    for check in checks:
        raise UsageError(
            f"{REQUIRE}: {EXERCISED}{check} is for `flashsale verify`, or for a rehearsal of a sale"
        )
    return thresholds


def aborting(scenario: Scenario, conditions: Sequence[str]) -> tuple[Threshold, ...]:
    """The conditions that are to end the storm. Raises UsageError with one line."""
    try:
        found = tuple(parse_abort(text, ABORT_IF) for text in conditions)
    except ValueError as error:
        raise UsageError(str(error)) from error
    for condition in found:
        if trouble := scenario.no_samples(condition):
            raise UsageError(f"{ABORT_IF}: {trouble}")
    return found


@dataclass(frozen=True)
class EarlierRun:
    """A run to be held against, and how much worse than it a run may be (of 1)."""

    summary: Summary
    folder: Path
    max_regress: float

    @classmethod
    def read(cls, scenario: Scenario, run: Path, max_regress: float) -> "EarlierRun":
        """The run in this folder, for a run of `scenario`. Raises UsageError with one line."""
        folder, summary = read_run(run, "--baseline ")
        try:
            ensure_comparable(summary, scenario.name, scenario.endpoints)
        except ValueError as error:
            raise UsageError(f"--baseline {run}: {error}") from error
        return cls(summary, folder.path.resolve(), max_regress)

    def beside(self, summary: Summary, folder: Path) -> Summary:
        """The run in `folder`, with what became of this one's figures in it."""
        lies = as_text(os.path.relpath(self.folder, folder.resolve()))
        return summary.with_baseline(compare(self.summary, summary, self.max_regress, lies))


def parse_regress(text: str) -> float:
    """The share of 1 in '15%'. Raises UsageError."""
    match = _PERCENT.fullmatch(text)
    if match is None:
        raise UsageError(f"--max-regress: found {text!r}, expected such as '{MAX_REGRESS}'")
    return float(Fraction(match[1]) / 100)


def ensure_virtual_users(processes: int, shard: Shard | None, users: int) -> None:
    """Raises UsageError where some shard or process would have no connection: a user's
    (`load.clicks` of them) stay with one."""
    if shard is not None:
        if shard.of > users:
            raise UsageError(
                f"--shard: found {shard}, expected at most one shard a connection ({users:,})"
            )
        users = len(range(shard.number - 1, users, shard.of))
    if processes > users:
        raise UsageError(
            f"--workers: found {processes}, expected at most one a connection ({users:,})"
        )


# Judging -----------------------------------------------------------------------------------------


def judge_run(
    run_dir: Path,
    stores: Stores | ShopBooks,
    teller: Teller = SILENT,
    drain_timeout_s: float = DRAIN_TIMEOUT_S,
    stormed: Summary | None = None,
    required: Collection[str] = (),
) -> JudgedRun:
    """Judge the run in `run_dir`; writes verify.json, then summary.json and the reports anew.

    `stores` are the family's, or the books of somebody's shop. `stormed` is the run's summary,
    where its storm has only just told it: the verdict hangs on no file. What cannot be written is
    told, and the verdict stands. `required` names checks that have to have met what they guard.

    Raises NothingJudgedError where there is no record to judge, UnreachableError where a store
    does not answer.
    """
    with teller.waiting() as on_look:
        if isinstance(stores, ShopBooks):
            judgement = examine_shop(
                run_dir,
                stores,
                drain_timeout_s=drain_timeout_s,
                required=required,
                on_look=on_look,
            )
        else:
            judgement = examine(
                run_dir,
                stores.ledger_url,
                stores.mysql_url,
                drain_timeout_s=drain_timeout_s,
                required=required,
                on_look=on_look,
            )
    folder, document = RunFolder(run_dir), judgement.to_json()
    with telling(teller.say):
        text = orjson.dumps(document, option=orjson.OPT_INDENT_2)
        write_file(run_dir / VERIFY_FILE, text + b"\n")
    summary = stormed or _read(folder)
    if summary is None:
        teller.say("no summary.json of this version, so only verify.json tells")
    else:
        summary = summary.with_verify(document)
        with telling(teller.say):
            summary.write(folder.summary)
        write_reports(folder, summary, teller.say)
    judged = JudgedRun(folder, judgement, summary)
    teller.judged(judged)
    return judged


def _read(folder: RunFolder) -> Summary | None:
    try:
        return Summary.read(folder.summary)
    except (OSError, ValueError):
        return None
