"""Judging a run: what the judge found goes into its files, and the whole run gets its verdict."""

from collections.abc import Collection
from pathlib import Path

import orjson

from flashsale.books import ShopBooks
from flashsale.campaign.stores import Stores
from flashsale.campaign.teller import SILENT, JudgedRun, Teller
from flashsale.report.files import write_reports
from flashsale.run.folder import VERIFY_FILE, RunFolder, telling, write_file
from flashsale.run.summary import Summary
from flashsale.verify import DRAIN_TIMEOUT_S
from flashsale.verify.shop import examine_shop
from flashsale.verify.verdict import examine


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
