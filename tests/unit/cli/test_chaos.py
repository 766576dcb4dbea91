"""`flashsale chaos`: what it refuses before anything is started, and the table that it prints."""

from datetime import UTC, datetime
from io import StringIO

import pytest
from rich.console import Console

from flashsale.campaign.chaos import Chaos, ensure_lasting
from flashsale.cli.trials import chaos_table, parse_first
from flashsale.errors import UsageError
from flashsale.faults.controls import CONTROLS, controls_named
from flashsale.faults.seeds import Trial
from flashsale.scenario.scenario import load_scenario

NOW = datetime(2026, 11, 29, 23, 59, tzinfo=UTC)


def test_the_first_seed_is_a_number_or_made_of_the_date() -> None:
    assert parse_first("17", NOW) == 17
    assert parse_first("today", NOW) == 202611290000


@pytest.mark.parametrize("text", ["", "-1", "tomorrow", "1.5", "9" * 19])
def test_another_first_seed_is_one_line(text: str) -> None:
    with pytest.raises(UsageError, match="expected a number, or 'today'"):
        parse_first(text, NOW)


@pytest.mark.parametrize(
    ("scenario", "told"),
    [("browse", r"give a scenario with a \[sale\]"), ("stampede", "goes on when its faults are")],
)
def test_a_storm_that_does_not_last_is_refused(scenario: str, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        ensure_lasting(load_scenario(scenario))


def test_controls_are_known_by_name() -> None:
    assert controls_named(["all"]) == CONTROLS
    assert list(controls_named(["ack_first"])) == ["ack_first"]
    with pytest.raises(UsageError, match="did you mean 'ack_first'"):
        controls_named(["ack_frist"])


def test_the_table_has_whole_heads_and_figures_on_80_columns() -> None:
    trial = Trial(
        1,
        ["lose_requests replica->ledger", "pause_past_lease c1"],
        "run",
        ["redis_conservation", "accepted_persisted", "linearizable"],
        acknowledged=123_456,
        recovered_s=59.94,
        sent_after=1,
        drained=True,
    )
    text = StringIO()
    Console(file=text, width=80).print(chaos_table(Chaos([trial] * 50)))
    lines = text.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    (head,) = (line for line in lines if "breached" in line)
    assert head.split() == [
        *("fault", "trials", "held", "orders", "lost", "gone", "twice", "again", "s", "breached")
    ]
    assert any("6,172,800" in line and "59.9 ≤ 59.9" in line for line in lines)
