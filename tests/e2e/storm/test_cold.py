"""Cold connections: opened when their user is due, so the handshake is part of the response."""

from datetime import UTC, datetime
from pathlib import Path

import orjson
from rig.scripted_sale import Act, ScriptedSale, sell
from rig.silent_port import silent_port

from flashsale.run.folder import create_run_folder
from flashsale.scenario.scenario import parse_scenario
from flashsale.scenario.target import Target
from flashsale.storm.figures.conclusion import Finished
from flashsale.storm.storm import Assignment, storm


def storm_on(base_url: str, tmp_path: Path, load: str, users: int = 40) -> Finished:
    text = f"""schema = 1
name = "cold"
[sale]
units = 5
[load]
model = "stampede"
users = {users}
connections = {users}
connect = "cold"
{load}
[timeouts]
connect_ms = 400
barrier_ms = 1
"""
    folder = create_run_folder("cold", tmp_path / "run", datetime.now(UTC))
    assignment = Assignment(parse_scenario(text, "cold"), Target.at(base_url), folder)
    return storm(assignment, {n: f"token-{n}" for n in range(1, users + 1)}, lambda _: None)


def test_a_cold_connection_is_opened_when_its_user_is_due(tmp_path: Path) -> None:
    arrived: list[int] = []

    def act(claim: object) -> Act:
        arrived.append(sale.connections)
        return sell(5)(claim)  # type: ignore[arg-type]

    with ScriptedSale(act).open() as sale:
        found = storm_on(sale.base_url, tmp_path, "spread_ms = 400")
    assert arrived[0] < 40, "all connections stood before the first claim left"
    assert sale.connections == 40
    assert found.summary.load.outcomes == {"sold": 5, "sold_out": 35}
    assert found.summary.generator.connect_ms.count == 40
    lines = map(orjson.loads, (tmp_path / "run/attempts.jsonl").read_bytes().splitlines())
    for line in lines:
        if line["kind"] == "result":
            assert line["due_us"] <= line["free_us"] <= line["sent_us"] < line["done_us"]
    response, service = found.figures.latency("response"), found.figures.latency("service")
    assert response.mean_us > service.mean_us


def test_without_a_spread_all_of_them_come_at_once(tmp_path: Path) -> None:
    with ScriptedSale(sell(5)).open() as sale:
        found = storm_on(sale.base_url, tmp_path, "")
    assert found.summary.load.outcomes == {"sold": 5, "sold_out": 35}
    assert found.summary.generator.connect_ms.count == 40


def test_a_handshake_that_nobody_answers_is_an_attempt_that_was_never_sent(tmp_path: Path) -> None:
    with silent_port() as port:
        found = storm_on(f"http://127.0.0.1:{port}", tmp_path, "", users=8)
    load = found.summary.load
    assert load.outcomes.get("unsent", 0) >= 4
    assert load.errors.get("connect", 0) == load.outcomes["unsent"]
    assert found.summary.exit_code in (6, 8)
