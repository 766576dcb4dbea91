"""Run folders as a storm leaves them: without a storm, where what each attempt was told is given;
and what one of a storm tells."""

from collections.abc import Sequence
from pathlib import Path
from random import Random

import orjson

from flashsale.model import Outcome, Reading
from flashsale.run.attempts import Attempts
from flashsale.run.attempts_file import AttemptsFile
from flashsale.run.folder import RunFolder
from flashsale.run.histogram import Histogram
from flashsale.run.summary import Summary
from flashsale.scenario.answer import Answer, indeterminate
from flashsale.scenario.scenario import Scenario, parse_scenario
from flashsale.storm.figures.conclusion import Circumstances, conclude
from flashsale.storm.figures.figures import Figures
from flashsale.storm.figures.generator import Effort, SelfReport
from flashsale.storm.figures.sale import AskedVouchers, claims_by_voucher
from flashsale.storm.plan.planning import plan_of

SOLD, GONE = Answer(Outcome.SOLD, 200, "515385561440059393"), Answer(Outcome.SOLD_OUT, 200)
HIT, LOAD = Answer(Reading.HIT, 200), Answer(Reading.LOAD, 200)
LOST = indeterminate("reset")

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>'\"&lt;"
"""What a server, a folder's name or a scenario could try."""


def told_orders(run: Path) -> dict[int, int]:
    """Order → user, of those whom a storm's record has as sold."""
    users: dict[int, int] = {}
    told: dict[int, int] = {}
    for line in map(orjson.loads, (run / "attempts.jsonl").read_bytes().splitlines()):
        if line["kind"] == "plan":
            users[line["i"]] = line["user"]
        elif line["kind"] == "result" and line["outcome"] == "sold":
            told[int(line["order"])] = users[line["i"]]
    return told


def sale_scenario(users: int, units: int, question: str = "Does it hold?") -> Scenario:
    """A stampede on one voucher."""
    return parse_scenario(
        f'# {question}\nschema = 1\nname = "told"\n[sale]\nunits = {units}\n'
        f'[load]\nmodel = "stampede"\nusers = {users}\nconnections = {min(users, 2000)}\n'
        '[thresholds]\n"buy.response.max" = "< 1s"\n',
        "",
    )


def record_of(answers: Sequence[Answer], spread_us: int = 40) -> Attempts:
    """Attempts that left one by one, each answered after some 100 to 300 ms."""
    random, record = Random(7), Attempts(len(answers))
    record.origin_ns, record.barrier_unix_us = 1_000_000, 1_763_884_800_000_000
    done = []
    for i in range(len(answers)):
        record.due_ns[i] = 1_000_000
        sent_ns = 1_000_000 + i * spread_us * 1000
        if answers[i].outcome is not Outcome.UNSENT:
            record.sent_ns[i] = sent_ns
        done.append((sent_ns + random.randrange(100_000, 300_000) * 1000, i))
    for at_ns, i in sorted(done):
        record.settle(i, at_ns, _own(answers[i], i))
    return record


def _own(answer: Answer, i: int) -> Answer:
    """The answer with an order id that no other attempt was given."""
    return answer if answer.order is None else answer._replace(order=str(int(answer.order) + i))


def summary_of(
    scenario: Scenario, record: Attempts, run: str = "told-1"
) -> tuple[Summary, Figures]:
    """What a storm would conclude from this record."""
    figures = Figures(record)
    count, units = len(record.answers), scenario.sale.units if scenario.sale else 0
    asked = AskedVouchers(range(1, count + 1), [1] * count, {1: units})
    summary = conclude(
        scenario,
        figures,
        Effort(SelfReport(1_000_000, 200_000_000, Histogram([500]), 1024), Histogram([700])),
        Circumstances(
            run=run,
            base_url="http://127.0.0.1:1",
            plan_hash="abc",
            started_at="2026-11-23T08:00:00.000+00:00",
            resolved=0,
            interrupted_by=None,
            claims=claims_by_voucher(record, asked),
        ),
    )
    return summary, figures


def leave_run(path: Path, answers: Sequence[Answer], units: int) -> RunFolder:
    """A run folder with summary.json and attempts.jsonl."""
    path.mkdir(parents=True, exist_ok=True)
    folder, scenario = RunFolder(path), sale_scenario(len(answers), units)
    plan, record = plan_of(scenario, list(range(1, len(answers) + 1))), record_of(answers)
    with AttemptsFile(folder.attempts) as file:
        header = {"run": path.name, "planned": len(plan), "vouchers": [1], "units": {"1": units}}
        file.write_plan(header, plan)
        file.write_barrier(record.barrier_unix_us)
        file.write_results(record)
        file.write_end(len(plan), len(plan), interrupted=False)
    summary_of(scenario, record, path.name)[0].write(folder.summary)
    return folder
