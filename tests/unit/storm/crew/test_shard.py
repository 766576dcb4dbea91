import re
from datetime import UTC, datetime, timedelta

import pytest

from flashsale.cli.storm_options import Generators, generators
from flashsale.errors import UsageError
from flashsale.scenario.scenario import parse_scenario
from flashsale.storm.crew.shard import Shard, parse_instant_us, parse_shard, shard_of_job

NOW = datetime(2026, 11, 23, 9, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "shard"),
    [("1/1", Shard(1, 1)), ("2/8", Shard(2, 8)), ("1000/1000", Shard(1000, 1000))],
)
def test_a_shard_is_read(text: str, shard: Shard) -> None:
    assert parse_shard(text) == shard
    assert str(shard) == text


@pytest.mark.parametrize("text", ["", "2", "0/2", "3/2", "1/0", "-1/2", "1/2/3", "a/b", "1/1001"])
def test_what_is_no_shard_is_one_line(text: str) -> None:
    with pytest.raises(ValueError, match="expected such as 2/8") as caught:
        parse_shard(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text", ["2026-11-23T10:00:00Z", "2026-11-23T11:00:00+01:00", "2026-11-23 10:00:00.000+00:00"]
)
def test_an_instant_is_read_with_its_offset(text: str) -> None:
    assert parse_instant_us(text, NOW) == 1_795_428_000_000_000


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("soon", "expected an instant such as 2026-11-23T09:00:00Z"),
        ("+30s", "expected an instant"),
        ("2026-11-23T10:00:00", "expected an instant"),  # whose ten o'clock?
        ("2026-11-23T09:00:00Z", "has passed; it is 2026-11-23T09:00:00Z"),
        ("2025-11-23T10:00:00Z", "has passed"),
        ("2027-11-23T10:00:00Z", "more than a day ahead"),
    ],
)
def test_an_instant_that_will_not_do_is_one_line(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason) as caught:
        parse_instant_us(text, NOW)
    assert "\n" not in str(caught.value)


# As options.

SCENARIO = parse_scenario(
    'schema = 1\nname = "x"\n[sale]\nunits = 1\n[load]\nmodel = "stampede"\nusers = 20\n'
    "connections = 11",
    "x",
)


@pytest.mark.parametrize(
    ("workers", "shard", "start_at", "message"),
    [
        (12, None, None, "--workers: found 12, expected at most one a connection (11)"),
        (1, "1/2", None, "--shard: this goes with --rendezvous or --start-at, so that all shards"),
        (1, "auto", "LATER", "--shard: auto: JOB_COMPLETION_INDEX is not set; by hand give such"),
        (1, "3/2", "LATER", "--shard: found '3/2', expected such as 2/8"),
        (1, "1/12", "LATER", "--shard: found 1/12, expected at most one shard a connection (11)"),
        (2, "2/11", "LATER", "--workers: found 2, expected at most one a connection (1)"),
        (1, None, "2020-01-01T00:00:00Z", "--start-at: 2020-01-01T00:00:00Z has passed; it is "),
        (1, None, "noon", "--start-at: found 'noon', expected an instant such as 20"),
    ],
)
def test_what_cannot_be_is_one_line(
    workers: int, shard: str | None, start_at: str | None, message: str
) -> None:
    later = (datetime.now(UTC) + timedelta(minutes=5)).isoformat()
    with pytest.raises(UsageError) as caught:
        generators(SCENARIO, workers, shard, later if start_at == "LATER" else start_at)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_what_can_be_is_taken() -> None:
    later = datetime.now(UTC) + timedelta(minutes=5)
    found = generators(SCENARIO, 2, "4/4", later.isoformat())
    assert (found.processes, found.shard) == (2, Shard(4, 4))
    assert found.start_at_us == round(later.timestamp() * 1e6)
    assert generators(SCENARIO, 11) == Generators(11)


def test_a_pod_of_an_indexed_job_is_a_shard() -> None:
    told = {"JOB_COMPLETION_INDEX": "3", "FLASHSALE_SHARDS": "4"}
    assert shard_of_job(told) == Shard(4, 4)


@pytest.mark.parametrize(
    ("told", "wrong"),
    [
        ({}, "JOB_COMPLETION_INDEX is not set; by hand give such as --shard 2/8"),
        ({"JOB_COMPLETION_INDEX": "0"}, "FLASHSALE_SHARDS is not set"),
        ({"JOB_COMPLETION_INDEX": "4", "FLASHSALE_SHARDS": "4"}, "expected 0 to FLASHSALE_SHARDS"),
        ({"JOB_COMPLETION_INDEX": "-1", "FLASHSALE_SHARDS": "4"}, "found JOB_COMPLETION_INDEX=-1"),
        ({"JOB_COMPLETION_INDEX": "9" * 5000, "FLASHSALE_SHARDS": "4"}, "expected 0 to"),
        ({"JOB_COMPLETION_INDEX": "0", "FLASHSALE_SHARDS": "many"}, "FLASHSALE_SHARDS=many"),
    ],
)
def test_what_is_no_indexed_job_is_told(told: dict[str, str], wrong: str) -> None:
    with pytest.raises(ValueError, match=re.escape(wrong)):
        shard_of_job(told)
