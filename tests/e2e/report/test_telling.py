"""What tells a verdict neither changes it nor loses it: streams, names, and files that fail."""

import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import orjson
import pytest
from rig.command_line import run_flashsale, start_flashsale
from rig.scripted_sale import Act, Claim, ScriptedSale, sell

RUNS = Path(__file__).parents[2] / "fixtures" / "runs"
SCENARIO = """# Does it hold?
schema = 1
name = "tiny"
[sale]
units = 10
[load]
model = "stampede"
users = 60
connections = 20
"""


@pytest.fixture
def desk(tmp_path: Path) -> Path:
    """A folder with a run in it, a scenario and tokens."""
    shutil.copytree(RUNS / "stampede", tmp_path / "run")
    (tmp_path / "tiny.toml").write_text(SCENARIO)
    rows = "".join(f"{user},token-{user}\n" for user in range(1, 61))
    (tmp_path / "tokens.csv").write_text("user_id,token\n" + rows)
    return tmp_path


def start(
    desk: Path, *arguments: str, stdout: int | None, stderr: int | None, prepare: Callable[[], None]
) -> int:
    """The exit code of a command that Python starts with these streams."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("FLASHSALE_", "GITH"))}
    return subprocess.run(
        [sys.executable, "-m", "flashsale", *arguments],
        cwd=desk, env=environment, stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr,
        preexec_fn=prepare, timeout=60, check=False,
    ).returncode  # fmt: skip


def storm(desk: Path, *arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    with ScriptedSale(sell(units=10)).open() as sale:
        return run_flashsale(
            desk, "storm", "tiny.toml", "--base-url", sale.base_url, "--tokens", "tokens.csv",
            "--no-calibrate", *arguments, **environment,
        )  # fmt: skip


def test_a_locale_without_a_character_gets_a_question_mark(desk: Path) -> None:
    for locale in ({"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
                   {"PYTHONIOENCODING": "ascii:surrogateescape"}):  # fmt: skip
        done = run_flashsale(desk, "report", "run", **locale)
        assert (done.returncode, done.stderr) == (0, "")
        assert "MySQL: initial ? stock" in done.stdout


@pytest.mark.parametrize("closed", ["pipe", "descriptor", "full"])
@pytest.mark.parametrize("streams", [(1,), (2,), (1, 2)])
def test_nobody_has_to_listen(desk: Path, closed: str, streams: tuple[int, ...]) -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    full = os.open("/dev/full", os.O_WRONLY)

    def shut() -> None:
        for stream in streams:
            os.close(stream)

    (desk / "run/latency.hgrm").unlink()
    line = ("report", "run", "--csv")
    if closed == "descriptor":
        nowhere = subprocess.DEVNULL
        code = start(desk, *line, stdout=nowhere, stderr=nowhere, prepare=shut)
    else:
        end = write_end if closed == "pipe" else full
        out, err = (end if stream in streams else subprocess.DEVNULL for stream in (1, 2))
        with start_flashsale(desk, *line, stdout=out, stderr=err) as process:
            code = process.wait(60)
    os.close(write_end)
    os.close(full)
    assert code == 0
    assert (desk / "run/attempts.csv").read_text().startswith("attempt,endpoint")
    assert (desk / "run/latency.hgrm").read_text().lstrip().startswith("Value")


def test_nobody_has_to_answer(desk: Path) -> None:
    """A question with standard input closed is refused, as where no terminal is."""
    stores = ("--ledger-url", "redis://127.0.0.1:1", "--cache-url", "redis://127.0.0.1:1",
              "--mysql-url", "mysql://u:p@127.0.0.1:1/x")  # fmt: skip
    told = desk / "told"
    with told.open("w") as file:
        code = start(
            desk, "seed", "--reset", *stores, stdout=file.fileno(), stderr=file.fileno(),
            prepare=lambda: os.close(0),
        )  # fmt: skip
    assert (code, told.read_text().count("\n")) == (2, 1), told.read_text()
    assert "--yes" in told.read_text()


@pytest.mark.parametrize("name", ["[", "a [/b] [red]c", "[bold]:boom:", "caf\udce9"])
def test_a_name_is_a_name_and_no_markup(desk: Path, name: str) -> None:
    shutil.move(desk / "run", desk / name)
    done = run_flashsale(desk, "report", name, "--csv")
    assert (done.returncode, done.stderr) == (0, "")
    assert os.fsencode(name).decode("utf-8", "replace") in done.stdout.replace("\\udce9", "\ufffd")
    assert run_flashsale(desk, "report", f"{name}/[/x]").stderr.count("\n") == 1


def test_nothing_that_a_run_says_steers_the_terminal(desk: Path) -> None:
    document = orjson.loads((desk / "run/summary.json").read_bytes())
    evil = "\x1b]0;owned\x07\x1b[2Jok\x9b31m\u202e"
    document["question"] = document["verify"]["checks"][0]["detail"] = evil
    document["hints"] = document["generator"]["complaints"] = [evil]
    (desk / "run/summary.json").write_bytes(orjson.dumps(document))
    done = run_flashsale(desk, "report", "run")
    assert done.returncode == 0, done.stderr
    assert not set("\x1b\x07\x9b\u202e") & set(done.stdout)
    assert "\\x1b[2Jok" in done.stdout
    wrong = run_flashsale(desk, "report", "\x1b[2J\nflashsale: all is well")
    assert wrong.stderr.count("\n") == 1
    assert "\x1b" not in wrong.stderr


def test_nothing_that_a_run_says_is_obeyed_by_a_ci_server(desk: Path) -> None:
    """Runners read commands from whatever line of a log begins so, however it came to begin."""
    document = orjson.loads((desk / "run/summary.json").read_bytes())
    evil = "::add-mask::0 ##[error]x " + "y" * 60 + " ::error::mine " + "z" * 60 + "\n::error::2"
    document["question"] = document["verify"]["checks"][0]["detail"] = evil
    document["hints"] = document["generator"]["complaints"] = [evil]
    document["load"]["errors"] = {evil: 1}
    (desk / "run/summary.json").write_bytes(orjson.dumps(document))
    for columns in ("44", "61", "80"):
        done = run_flashsale(desk, "report", "run", COLUMNS=columns)
        assert (done.returncode, done.stderr) == (0, "")
        assert not [line for line in done.stdout.splitlines() if line.strip().startswith("::")]
        assert "##[" not in done.stdout


def test_a_width_that_no_terminal_has_loses_no_verdict(desk: Path) -> None:
    usual = run_flashsale(desk, "report", "run", COLUMNS="80").stdout
    assert "verdict" in usual
    for columns in ("0", "99999999", "abc"):
        done = run_flashsale(desk, "report", "run", COLUMNS=columns)
        assert (done.returncode, done.stdout, done.stderr) == (0, usual, "")
        told = run_flashsale(desk, "report", "--help", COLUMNS=columns, TERMINAL_WIDTH=columns)
        assert (told.returncode, told.stderr) == (0, "")
        assert "Usage" in told.stdout


def test_a_verdict_is_told_where_its_files_cannot_be_written(desk: Path) -> None:
    """The page is megabytes, all else of so small a run is not."""
    steps = desk / "steps.md"
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, limits[1]))
    try:
        done = storm(
            desk, "--out", "out", GITHUB_ACTIONS="true", GITHUB_STEP_SUMMARY=str(steps),
            PYTHONDONTWRITEBYTECODE="1",
        )  # fmt: skip
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert done.returncode == 0, done.stderr
    assert "PASS" in done.stdout
    assert "/out/report.html: File too large; raise the limit of a file's size" in done.stderr
    assert "flashsale tiny: pass" in steps.read_text()
    assert {path.name for path in (desk / "out").iterdir()} == {
        "attempts.jsonl", "scenario.json", "stack", "summary.json", "latency.hgrm",
        "latency.hlog", "junit.xml",
    }  # fmt: skip


def test_a_record_that_cannot_be_kept_is_one_line(desk: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3_000, limits[1]))
    try:
        done = storm(desk, "--out", "out", "--quiet", PYTHONDONTWRITEBYTECODE="1")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert done.returncode == 2, done.stderr
    assert "attempts.jsonl: File too large; raise the limit" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(("units", "code", "verdict"), [(10, 6, "INVALID"), (5, 3, "FAIL")])
def test_a_record_that_breaks_off_under_a_storm_takes_no_verdict_along(
    desk: Path, units: int, code: int, verdict: str
) -> None:
    """The plan of so few attempts fits, their results do not."""
    (desk / "tiny.toml").write_text(SCENARIO.replace("units = 10", f"units = {units}"))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (7_000, limits[1]))
    try:
        done = storm(desk, "--out", "out", "--quiet", PYTHONDONTWRITEBYTECODE="1")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert done.returncode == code, done.stderr
    assert f"verdict    {verdict}" in done.stdout
    assert "File too large; raise the limit" in " ".join(done.stdout.split())
    assert "Traceback" not in done.stderr


def test_a_run_folder_that_vanishes_under_a_storm_takes_no_verdict_along(desk: Path) -> None:
    healthy = sell(units=10)

    def act(claim: Claim) -> Act:
        if claim.number == 30:
            shutil.rmtree(desk / "out", ignore_errors=True)
        return healthy(claim)

    with ScriptedSale(act).open() as sale:
        done = run_flashsale(
            desk, "storm", "tiny.toml", "--base-url", sale.base_url, "--tokens", "tokens.csv",
            "--no-calibrate", "--quiet", "--out", "out",
        )  # fmt: skip
    assert done.returncode == 6, done.stderr
    assert "verdict    INVALID" in done.stdout
    assert "Traceback" not in done.stderr


def test_a_step_summary_that_nobody_reads_is_not_waited_for(desk: Path) -> None:
    os.mkfifo(desk / "steps")
    done = storm(desk, "--out", "out", GITHUB_ACTIONS="true", GITHUB_STEP_SUMMARY="steps")
    assert done.returncode == 0, done.stderr
    assert "no step summary: steps: " in done.stderr


def test_a_folder_called_latest_is_told_and_no_more(desk: Path) -> None:
    (desk / "runs/latest").mkdir(parents=True)
    done = storm(desk)
    assert done.returncode == 0, done.stderr
    assert "storm: cannot write runs/latest: Is a directory" in done.stderr


def test_a_report_that_cannot_be_written_is_told_with_its_table(desk: Path) -> None:
    (desk / "run/report.html").mkdir()
    (desk / "run/junit.xml").unlink(missing_ok=True)
    done = run_flashsale(desk, "report", "run")
    assert done.returncode == 2
    assert done.stderr.startswith("report: cannot write run/report.html: Is a directory")
    assert "verdict    PASS" in done.stdout
    assert (desk / "run/junit.xml").exists()


def test_a_cut_record_is_said(desk: Path) -> None:
    record = desk / "run/attempts.jsonl"
    record.write_bytes(b"".join(record.read_bytes().splitlines(keepends=True)[:-3]))
    done = run_flashsale(desk, "report", "run")
    assert done.returncode == 0
    assert "report: the record has no end" in done.stderr
    assert "the record has no end" in (desk / "run/report.html").read_text()


@pytest.mark.parametrize(
    ("file", "before", "after"),
    [
        ("summary.json", '"exit_code": 0', '"exit_code": 99'),
        ("summary.json", '"interrupted_by": null', '"interrupted_by": 9'),
        ("summary.json", '"rate_per_s": ', '"rate_per_s": NaN, "x": '),
        ("summary.json", '"persisted": 10', '"persisted": "ten"'),
        ("attempts.jsonl", '"done_us":', '"done_us":-'),
        ("attempts.jsonl", '"planned":40', '"planned":4000000000000'),
    ],
)
def test_a_run_of_others_is_one_line(desk: Path, file: str, before: str, after: str) -> None:
    path = desk / "run" / file
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after))
    for arguments in (("report", "run"), ("report", "run", "--csv"), ("report", "merge", "run")):
        done = run_flashsale(desk, *arguments)
        assert (done.returncode, done.stdout) == (2, ""), done.stderr
        assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("file", ["summary.json", "attempts.jsonl"])
def test_a_pipe_in_a_run_folder_is_not_waited_for(desk: Path, file: str) -> None:
    (desk / "run" / file).unlink()
    os.mkfifo(desk / "run" / file)
    done = run_flashsale(desk, "report", "run")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "Not a file" in done.stderr


def test_findings_that_are_none_of_verify_are_left_out(desk: Path) -> None:
    document = orjson.loads((desk / "run/summary.json").read_bytes())
    document["verify"]["checks"][0]["findings"] = [
        1, {"total": "many", "offences": 7}, {"offences": ["x", {"text": "<b>y"}]},
    ]  # fmt: skip
    (desk / "run/summary.json").write_bytes(orjson.dumps(document))
    done = run_flashsale(desk, "report", "run")
    assert done.returncode == 0, done.stderr
    assert "&lt;b&gt;y" in (desk / "run/report.html").read_text()
