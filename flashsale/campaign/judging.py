"""Judging a run: what the judge found goes into its files, and the whole run gets its verdict."""

from pathlib import Path

import orjson

from flashsale.campaign.stores import Stores
from flashsale.campaign.teller import SILENT, JudgedRun, Teller
from flashsale.report.files import write_reports
from flashsale.run.folder import VERIFY_FILE, RunFolder
from flashsale.run.summary import Summary
from flashsale.verify import DRAIN_TIMEOUT_S
from flashsale.verify.verdict import examine


def judge_run(
    run_dir: Path,
    stores: Stores,
    teller: Teller = SILENT,
    drain_timeout_s: float = DRAIN_TIMEOUT_S,
) -> JudgedRun:
    """Judge the run in `run_dir`; writes verify.json, then summary.json and the reports anew.

    Raises NothingJudgedError where there is no record to judge, UnreachableError where a store
    does not answer.
    """
    with teller.waiting() as on_look:
        judgement = examine(
            run_dir,
            stores.ledger_url,
            stores.mysql_url,
            drain_timeout_s=drain_timeout_s,
            on_look=on_look,
        )
    folder, document = RunFolder(run_dir), judgement.to_json()
    _write(document, run_dir / VERIFY_FILE)
    summary = _read(folder)
    if summary is None:
        teller.say("no summary.json of this version, so only verify.json tells")
    else:
        summary = summary.with_verify(document)
        summary.write(folder.summary)
        write_reports(folder, summary)
    judged = JudgedRun(folder, judgement, summary)
    teller.judged(judged)
    return judged


def _write(document: object, path: Path) -> None:
    draft = path.with_name(f".{path.name}")
    draft.write_bytes(orjson.dumps(document, option=orjson.OPT_INDENT_2) + b"\n")
    draft.replace(path)


def _read(folder: RunFolder) -> Summary | None:
    try:
        return Summary.read(folder.summary)
    except (OSError, ValueError):
        return None
