"""`flashsale report` on the folder of a run that was stormed for it."""

import shutil
from pathlib import Path

import pytest
from rig.command_line import run_flashsale
from rig.scripted_sale import ScriptedSale, sell

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


@pytest.fixture(scope="module")
def stormed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A desk with the run of a storm in `run`."""
    desk = tmp_path_factory.mktemp("desk")
    (desk / "tiny.toml").write_text(SCENARIO)
    rows = "".join(f"{user},token-{user}\n" for user in range(1, 61))
    (desk / "tokens.csv").write_text("user_id,token\n" + rows)
    with ScriptedSale(sell(units=10)).open() as sale:
        done = run_flashsale(
            desk, "storm", "tiny.toml", "--base-url", sale.base_url, "--tokens", "tokens.csv",
            "--out", "run",
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return desk


@pytest.fixture
def desk(stormed: Path, tmp_path: Path) -> Path:
    """The same, to be changed at will."""
    shutil.copytree(stormed / "run", tmp_path / "run")
    return tmp_path


def test_a_report_is_rendered_again_from_the_folder(desk: Path) -> None:
    run = desk / "run"
    rendered = ["report.html", "junit.xml", "latency.hgrm", "latency.hlog"]
    before = {name: (run / name).read_text() for name in rendered}
    (run / "junit.xml").unlink()
    (run / "report.html").unlink()
    done = run_flashsale(desk, "report", "run")
    assert done.returncode == 0, done.stderr
    assert "tiny  Does it hold?" in done.stdout
    assert (run / "junit.xml").read_text() == before["junit.xml"]
    assert len((run / "report.html").read_text()) == pytest.approx(
        len(before["report.html"]), rel=0.1
    )
    assert (run / "latency.hgrm").read_text() == before["latency.hgrm"], "truer than the attempts"
    (run / "latency.hlog").unlink()
    run_flashsale(desk, "report", "run")
    lines = (run / "latency.hlog").read_text().splitlines()
    assert [line.split(",")[0] for line in lines] == [
        line.split(",")[0] for line in before["latency.hlog"].splitlines()
    ]


def test_without_attempts_there_are_tables_and_no_charts(desk: Path) -> None:
    (desk / "run/attempts.jsonl").unlink()
    (desk / "run/report.html").unlink()
    done = run_flashsale(desk, "report", "run")
    assert done.returncode == 0
    assert done.stderr == "report: no attempts.jsonl in run, so no charts\n"
    assert "tiny" in (desk / "run/report.html").read_text()


@pytest.mark.parametrize(
    ("file", "content", "line"),
    [
        ("summary.json", None, "run: no summary.json, so no finished run; name a run's folder"),
        ("summary.json", "{", "run/summary.json: damaged, or of another version"),
        ("summary.json", '{"schema": 2}', "run/summary.json: damaged, or of another version"),
        ("attempts.jsonl", "[]\n", "run/attempts.jsonl: damaged, so no charts; "
         "`flashsale verify` names the line"),
        ("attempts.jsonl", '{"kind":"header"}\n', "run/attempts.jsonl: damaged, so no charts; "
         "`flashsale verify` names the line"),
    ],
)  # fmt: skip
def test_a_damaged_folder_is_one_line(
    desk: Path, file: str, content: str | None, line: str
) -> None:
    (desk / "run" / file).unlink()
    if content is not None:
        (desk / "run" / file).write_text(content)
    done = run_flashsale(desk, "report", "run")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"flashsale: {line}\n"


def test_the_newest_run_is_the_default(tmp_path: Path) -> None:
    done = run_flashsale(tmp_path, "report")
    assert done.returncode == 2
    first = "no run was left here yet; `flashsale rehearse stampede` makes one\n"
    assert done.stderr == (f"flashsale: runs/latest: no summary.json, so no finished run; {first}")
    judged = run_flashsale(tmp_path, "verify")
    assert judged.returncode == 8
    assert judged.stderr == f"flashsale: runs/latest: no attempts to judge; {first}"
    assert "render" in run_flashsale(tmp_path, "report", "--help").stdout


def test_several_runs_are_held_against_the_first(desk: Path) -> None:
    shutil.copytree(desk / "run", desk / "other")
    same = run_flashsale(desk, "report", "run", "other", "--max-regress", "0%")
    assert same.returncode == 0, same.stderr
    assert "run against run, at most 0 % worse" in same.stdout
    assert "no change" in same.stdout
    text = (desk / "other/summary.json").read_text()
    (desk / "other/summary.json").write_text(text.replace('"scenario": "tiny"', '"scenario": "x"'))
    done = run_flashsale(desk, "report", "run", "other")
    assert done.returncode == 2
    assert "it is a run of 'tiny', and this one is of 'x'" in done.stderr


def test_the_attempts_are_a_table_where_one_is_asked_for(desk: Path) -> None:
    assert not (desk / "run/attempts.csv").exists(), "the default run pays nothing for it"
    assert run_flashsale(desk, "report", "--csv", "run").returncode == 0
    lines = (desk / "run/attempts.csv").read_text().splitlines()
    assert len(lines) == 61
    assert lines[0].startswith("attempt,endpoint,user,voucher,")
    assert sum(",sold," in line for line in lines) == 10


def test_the_schema_is_printed(tmp_path: Path) -> None:
    from flashsale.run.summary import PUBLISHED

    assert run_flashsale(tmp_path, "report", "schema").stdout == PUBLISHED.read_text()
