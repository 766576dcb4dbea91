"""`flashsale verify` as a user runs it: table, files, exit codes, one line for trouble."""

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from rig.command_line import run_flashsale
from rig.real_sale import RealSale

LATENCY = dict.fromkeys(("mean", "p50", "p90", "p95", "p99", "p99.9", "max"), 1.0) | {"count": 3}


@pytest.fixture
def sale(ledger_url: str, mysql_url: str, tmp_path: Path) -> Iterator[RealSale]:
    """A finished run in `runs/one`, to which `runs/latest` points: three of five units sold."""
    run = tmp_path / "runs" / "one"
    run.mkdir(parents=True)
    (tmp_path / "runs" / "latest").symlink_to("one")
    sale = RealSale(ledger_url, mysql_url, run)
    sale.baseline()
    for user in (1, 2, 3):
        sale.buy(user, 100 + user)
    sale.work()
    sale.write()
    yield sale
    sale.close()


def verify(sale: RealSale, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command beside `runs`, with the stores in its environment."""
    own = {"FLASHSALE_LEDGER_URL": sale.ledger_url, "FLASHSALE_MYSQL_URL": sale.mysql_url}
    return run_flashsale(sale.run_dir.parent.parent, "verify", *arguments, **own)


def summary_of(run: Path, **changes: Any) -> dict[str, Any]:
    """A storm's summary, written into the run folder."""
    summary = {
        "schema": 1,
        "run": "run-1",
        "scenario": "test",
        "question": "",
        "seed": 1,
        "plan_hash": "",
        "base_url": "http://127.0.0.1",
        "started_at": "2026-01-01T00:00:00Z",
        "verdict": "pass",
        "exit_code": 0,
        "load": {
            "users": 3,
            "connections": 3,
            "closed": False,
            "planned": 3,
            "sent": 3,
            "duration_s": 1.0,
            "rate_per_s": 3.0,
            "outcomes": {"sold": 3},
            "errors": {},
            "indeterminate": 0,
            "resolved": 0,
        },
        "latency_ms": {
            "response": LATENCY,
            "service": LATENCY,
            "by_outcome": {},
            "censored": 0,
            "lost": 0,
        },
        "generator": {
            "verdict": "valid",
            "complaints": [],
            "cpu_us_per_request": 1.0,
            "cpu_share": 0.1,
            "start_lag_ms": LATENCY,
            "loop_lag_ms": LATENCY,
            "connect_ms": LATENCY,
            "descriptors_limit": 1024,
        },
        "orders": {"accepted": 3, "rejected": 0},
        "thresholds": [],
        **changes,
    }
    (run / "summary.json").write_bytes(orjson.dumps(summary))
    return summary


def read(run: Path, name: str = "summary.json") -> dict[str, Any]:
    document: dict[str, Any] = orjson.loads((run / name).read_bytes())
    return document


def test_a_good_run_passes(sale: RealSale) -> None:
    done = verify(sale)
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert sum(line.startswith("pass ") for line in lines) == 13
    assert "orders 3 accepted, 3 rows, the last row 0.120 s later" in lines
    assert lines[-1] == "verdict pass (exit 0)"
    assert any(line.startswith("acceptance to row, ms: p50 120, max 120 (") for line in lines)


def test_a_deleted_row_is_named_and_exits_3(sale: RealSale) -> None:
    sale.sql("DELETE FROM tb_voucher_order WHERE id = 102")
    done = verify(sale, "runs/one")
    assert done.returncode == 3
    assert "fail    accepted_persisted  promised, but no row (1)" in done.stdout
    assert "        order 102, user 2, voucher 1: no row" in done.stdout.splitlines()
    assert done.stdout.splitlines()[-1] == "verdict fail (exit 3)"


def test_what_was_found_goes_into_the_runs_files(sale: RealSale) -> None:
    before = summary_of(sale.run_dir)
    assert verify(sale).returncode == 0
    summary = read(sale.run_dir)
    assert (summary["verdict"], summary["exit_code"]) == ("pass", 0)
    assert summary["orders"] == {"accepted": 3, "persisted": 3, "rejected": 0, "drain_s": 0.12}
    assert summary["latency_ms"]["persisted"]["max"] == 120
    assert summary["verify"]["verdict"] == "pass"
    assert len(summary["verify"]["checks"]) == 13
    assert summary["load"]["outcomes"] == before["load"]["outcomes"]
    assert 'name="no_undersell"' in (sale.run_dir / "junit.xml").read_text()
    assert read(sale.run_dir, "verify.json")["verdict"] == "pass"


def test_a_verdict_is_drawn_anew_each_time(sale: RealSale) -> None:
    summary_of(sale.run_dir)
    sale.redis.incr("seckill:stock:1")
    assert verify(sale).returncode == 3
    assert read(sale.run_dir)["exit_code"] == 3
    sale.redis.decr("seckill:stock:1")
    assert verify(sale).returncode == 0
    assert read(sale.run_dir)["verdict"] == "pass"


def test_an_invalid_run_is_never_a_pass(sale: RealSale) -> None:
    document = summary_of(sale.run_dir)
    summary_of(sale.run_dir, generator={**document["generator"], "verdict": "invalid"})
    done = verify(sale)
    assert done.returncode == 6
    assert done.stdout.splitlines()[-1] == (
        "verdict invalid: the sale's rules hold, the run itself falls short (exit 6)"
    )
    assert read(sale.run_dir)["verdict"] == "invalid"


def test_json_is_the_whole_judgement(sale: RealSale) -> None:
    sale.redis.srem("seckill:order:1", 2)
    done = verify(sale, "--json")
    document = orjson.loads(done.stdout)
    assert done.returncode == document["exit_code"] == 3
    (check,) = (c for c in document["checks"] if c["name"] == "redis_conservation")
    orders = {o["order"] for f in check["findings"] for o in f["offences"]}
    assert "102" in orders


def test_a_stuck_order_fails_after_the_time_out(sale: RealSale) -> None:
    sale.buy(4, 104)
    sale.write()
    done = verify(sale, "--drain-timeout", "0.2")
    assert done.returncode == 3
    assert "unknown accepted_persisted" in done.stdout
    assert "order 104, user 4, voucher 1, entry" in done.stdout


@pytest.mark.parametrize("content", [None, b"", b'{"kind":"plan"}\n'])
def test_a_run_without_attempts_exits_8(sale: RealSale, content: bytes | None) -> None:
    attempts = sale.run_dir / "attempts.jsonl"
    attempts.unlink()
    if content is not None:
        attempts.write_bytes(content)
    done = verify(sale)
    assert (done.returncode, done.stdout) == (8, "")
    assert done.stderr.startswith("flashsale: runs/latest")
    assert len(done.stderr.splitlines()) == 1


def test_another_data_set_exits_8(sale: RealSale) -> None:
    sale.sql("UPDATE tb_dataset SET id = %s", "b" * 32)
    done = verify(sale)
    assert done.returncode == 8
    assert done.stdout.splitlines()[-1].startswith("verdict unknown: the stores hold data set bbb")


@pytest.mark.parametrize(
    ("option", "url"),
    [("--ledger-url", "redis://127.0.0.1:1/0"), ("--mysql-url", "mysql://127.0.0.1:1/flashsale")],
)
def test_a_store_that_does_not_answer_exits_7(sale: RealSale, option: str, url: str) -> None:
    done = verify(sale, option, url)
    assert (done.returncode, done.stdout) == (7, "")
    assert "cannot be read" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("value", ["-1", "nan", "inf", "soon"])
def test_a_time_out_that_is_none_exits_2(sale: RealSale, value: str) -> None:
    done = verify(sale, f"--drain-timeout={value}")
    assert (done.returncode, done.stdout) == (2, "")
    assert "--drain-timeout" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("content", [None, "{}", "{"])
def test_without_a_summary_the_judgement_stands_alone(sale: RealSale, content: str | None) -> None:
    if content is not None:
        (sale.run_dir / "summary.json").write_text(content)
    sale.redis.incr("seckill:stock:1")
    done = verify(sale)
    assert done.returncode == 3
    assert "no summary.json of this version" in done.stderr
    assert read(sale.run_dir, "verify.json")["exit_code"] == 3
    assert content is None or (sale.run_dir / "summary.json").read_text() == content


def test_a_check_that_met_nothing_says_so_and_may_be_required_to_have(sale: RealSale) -> None:
    summary_of(sale.run_dir)
    done = verify(sale, "--require", "exercised:duplicate_truthful")
    assert done.returncode == 8
    assert "        met nothing that it guards (retries told duplicate: 0)" in done.stdout
    assert "duplicate_truthful met nothing that it guards" in done.stdout.splitlines()[-1]
    assert read(sale.run_dir)["exit_code"] == 8
    told = read(sale.run_dir, "verify.json")["checks"][8]["exercised"]
    assert told == {"retries told duplicate": 0}
    for name in ("report.html", "junit.xml"):
        assert (
            "met nothing that it guards (retries told duplicate: 0)"
            in (sale.run_dir / name).read_text()
        )
    sale.told(1, "duplicate", 101)
    sale.write()
    done = verify(sale, "--require", "exercised:duplicate_truthful")
    assert done.returncode == 0
    assert "        met retries told duplicate: 1" in done.stdout.splitlines()


def test_a_check_that_does_not_exist_cannot_be_required(sale: RealSale) -> None:
    done = verify(sale, "--require", "exercised:duplicates")
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
