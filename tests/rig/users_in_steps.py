"""A storm of users who take several steps, on a shop that answers as it is told."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson

from flashsale.run.folder import RunFolder, create_run_folder
from flashsale.scenario.scenario import parse_scenario
from flashsale.scenario.target import Target
from flashsale.storm.figures.conclusion import Finished
from flashsale.storm.storm import Assignment, storm
from rig.scripted_sale import FIRST_ORDER, SOLD_OUT, Act, Claim, ScriptedSale, http, sold

HIT = http(200, b'{"success":true,"data":{"id":1}}', {"x-cache": "hit"})
SIGNED = http(200, b'{"success":true}')
SCENARIO = """schema = 1
name = "steps"
[sale]
vouchers = 2
units = 5
{browse}[load]
model = "{model}"
"""


def selling(units: int, delay_s: float = 0.0) -> Callable[[Claim], Act]:
    """Reads hit, sign-ins succeed, and so many claims sell."""
    left = iter(range(units))

    def act(claim: Claim) -> Act:
        if claim.path.startswith("/shop/"):
            return Act(HIT, delay_s)
        if claim.path == "/user/sign":
            return Act(SIGNED, delay_s)
        if claim.method != "POST":  # a look before the storm, or after it
            return Act(http(200, b'{"success":true,"data":{"state":"none"}}'))
        unit = next(left, None)
        return Act(SOLD_OUT if unit is None else sold(FIRST_ORDER + unit), delay_s)

    return act


def fair_town(*units: int) -> Callable[[Claim], Act]:
    """A shop with so many units of voucher 1, of voucher 2 …, in which nobody buys twice."""
    left, holders, answer = dict(enumerate(units, 1)), set[tuple[str, int]](), selling(sum(units))

    def act(claim: Claim) -> Act:
        if claim.method == "POST" and "seckill" in claim.path:
            voucher = int(claim.path.rpartition("/")[2])
            if (claim.token, voucher) in holders or not left[voucher]:
                return Act(SOLD_OUT)
            left[voucher] -= 1
            holders.add((claim.token, voucher))
        return answer(claim)

    return act


def lines_of(folder: RunFolder, kind: str) -> list[dict[str, Any]]:
    lines = map(orjson.loads, folder.attempts.read_bytes().splitlines())
    return [line for line in lines if line["kind"] == kind]


def visit(
    sale: ScriptedSale,
    tmp_path: Path,
    load: str,
    more: str = "",
    *,
    model: str = "closed",
    workers: int = 1,
) -> tuple[Finished, RunFolder]:
    """A storm of this load, and what holds after any: one end for each line of the plan."""
    browse = "[browse]\nshops = 3\n" * ("browse" in load or "refresh" in load)
    scenario = parse_scenario(
        f"{SCENARIO.format(browse=browse, model=model)}{load}\n{more}", "steps"
    )
    folder = create_run_folder("steps", tmp_path / "run", datetime.now(UTC))
    tokens = {user: f"token-{user}" for user in range(1, scenario.load.user_count + 1)}
    target = Target.at(sale.base_url)
    assignment = Assignment(scenario, target, folder, processes=workers)
    finished = storm(assignment, tokens, lambda _: None)
    ends = [line["i"] for kind in ("result", "spared") for line in lines_of(folder, kind)]
    assert sorted(ends) == list(range(len(finished.plan)))
    return finished, folder
