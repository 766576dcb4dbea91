"""Command lines and run folders that are almost right: one of the exit codes, one line, no more.

Each command runs in this process, in an empty folder, with stores where nobody listens. Those that
start servers only take their line apart.
"""

import contextlib
import copy
import io
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import orjson
import pytest
import typer
from hypothesis import given, settings
from hypothesis import strategies as st
from rig.command_line import parse
from rig.odd import TEXTS, disturbed

from flashsale.cli.tree import run, tree
from flashsale.errors import ExitCode, UsageError

RUNS = Path(__file__).parents[2] / "fixtures" / "runs"
NOBODY = {
    "--ledger-url": "redis://127.0.0.1:1",
    "--cache-url": "redis://127.0.0.1:1",
    "--mysql-url": "mysql://u:p@127.0.0.1:1/flashsale",
    "--base-url": "http://127.0.0.1:1",
    "--prometheus-url": "http://127.0.0.1:1",
    "--books-url": "postgresql://u:p@127.0.0.1:1/shop",
    "--books-redis-url": "redis://127.0.0.1:1",
}
STARTING = ("rehearse", "chaos", "serve", "replica", "worker", "services", "doctor")
"""What would start something: these lines are taken apart and not run."""
LONG = ("--calibrate", "--start-at")
PLAIN = ("1", "2", "stampede", "a.toml", "a.csv", "run", "run/summary.json", ".", "nowhere", "10s")
WORDS = [text for text in (*TEXTS, *PLAIN) if "\x00" not in text]  # no line has that


class Command(NamedTuple):
    """A command and what it takes."""

    words: tuple[str, ...]
    arguments: int
    options: dict[str, bool]  # whether a value follows


def commands() -> Iterator[Command]:
    def walk(command: Any, words: tuple[str, ...]) -> Iterator[Command]:
        if hasattr(command, "commands"):
            for name, inner in command.commands.items():
                yield from walk(inner, (*words, name))
        else:
            options = {
                name: not one.is_flag
                for one in command.params
                if one.param_type_name == "option"
                for name in (*one.opts, *one.secondary_opts)
            }
            yield Command(words, len(command.params) - len(options), options)

    yield from walk(typer.main.get_command(tree()), ())


COMMANDS = list(commands())


@st.composite
def lines(draw: st.DrawFn, chosen: Sequence[Command]) -> list[str]:
    """A line with some of a command's options, most of them with something odd."""
    command = draw(st.sampled_from(chosen))
    line = list(command.words)
    word = st.sampled_from(WORDS)
    for name in draw(st.lists(st.sampled_from([*command.options, "--nope"]), max_size=4)):
        if name not in LONG:
            line.append(name)
        if command.options.get(name) and draw(st.integers(0, 9)) and name not in LONG:
            line.append(draw(word))
    line += draw(st.lists(word, max_size=2))
    given_already = set(line)
    for name, url in NOBODY.items():
        if name in command.options and name not in given_already:
            line += [name, url]
    return line


def ask(line: Sequence[str], folder: Path) -> tuple[int, str]:
    """The exit code, and all that was said."""
    out, err = io.StringIO(), io.StringIO()
    with (
        contextlib.chdir(folder),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        code = run(line)
    told = err.getvalue()
    assert code in set(ExitCode) - {ExitCode.INTERNAL}, (line, told)
    assert "Traceback" not in out.getvalue() + told, line
    if code in (ExitCode.USAGE, ExitCode.UNREACHABLE):
        *_, last = told.splitlines()
        assert last.startswith(("flashsale: ", f"{line[0]}: ")), (line, told)
        assert told.count("flashsale: ") <= 1, (line, told)
        assert len(last) < 4_000, line
    return code, told


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [*os.environ]:
        if name.startswith(("FLASHSALE_", "GITHUB_")):
            monkeypatch.delenv(name)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A place to work in, with a run, a scenario and a file of tokens."""
    shutil.copytree(RUNS / "stampede", tmp_path / "run")
    (tmp_path / "a.toml").write_text('schema = 1\nname = "a"\n')
    (tmp_path / "a.csv").write_text("user,token\n1,t\n")
    return tmp_path


def test_the_commands_are_found() -> None:
    assert len(COMMANDS) > 25
    assert {"storm", "verify", "report"} <= {command.words[0] for command in COMMANDS}


@settings(max_examples=70)
@given(line=lines([one for one in COMMANDS if one.words[0] not in STARTING]))
def test_any_line_ends_in_an_exit_code(folder: Path, line: list[str]) -> None:
    ask(line, folder)


@settings(max_examples=50)
@given(lines([one for one in COMMANDS if one.words[0] in STARTING]))
def test_any_line_is_taken_apart(line: list[str]) -> None:
    with contextlib.suppress(typer.TyperException, UsageError):
        parse(line)


# Run folders --------------------------------------------------------------------------------------

JSON_FILES = ("summary.json", "scenario.json", "baseline.json", "ending.json", "verify.json")
ASKED = (
    ["report", "run"],
    ["report", "run", "--csv"],
    ["report", "run", "other"],
    ["report", "merge", "1", "2"],
    ["verify", "run", "--ledger-url", NOBODY["--ledger-url"], "--mysql-url", NOBODY["--mysql-url"]],
    ["verify", "run", "--json"],
)


def with_runs(folder: Path) -> None:
    for name, source in (
        ("run", "stampede"),
        ("other", "closed"),
        ("1", "shards/1"),
        ("2", "shards/2"),
    ):
        shutil.rmtree(folder / name, ignore_errors=True)
        shutil.copytree(RUNS / source, folder / name)


def test_a_run_that_nobody_touched_is_reported(tmp_path: Path) -> None:
    with_runs(tmp_path)
    assert ask(ASKED[0], tmp_path)[0] == ExitCode.PASS


@settings(max_examples=20)
@given(name=st.sampled_from(JSON_FILES), line=st.sampled_from(ASKED), data=st.data())
def test_a_run_with_other_values(tmp_path: Path, name: str, line: list[str], data: Any) -> None:
    """A place or two in one of its JSON files holds something else."""
    with_runs(tmp_path)
    for file in tmp_path.glob(f"*/{name}"):
        changed = data.draw(disturbed([orjson.loads(file.read_bytes())]))
        file.write_bytes(_dumped(changed))
    ask(line, tmp_path)


@settings(max_examples=20)
@given(line=st.sampled_from(ASKED), data=st.data())
def test_a_run_with_other_lines(tmp_path: Path, line: list[str], data: Any) -> None:
    """Some of its record's lines are changed, lost, doubled or moved."""
    with_runs(tmp_path)
    file = (
        tmp_path / line[1] / "attempts.jsonl"
        if line[1] != "merge"
        else tmp_path / "1/attempts.jsonl"
    )
    rows = [orjson.loads(row) for row in file.read_bytes().splitlines()]
    match data.draw(st.sampled_from(["change", "drop", "double", "move"])):
        case "change":
            at = data.draw(st.integers(0, len(rows) - 1))
            rows[at] = data.draw(disturbed([rows[at]]))
        case "drop":
            del rows[data.draw(st.integers(0, len(rows) - 1))]
        case "double":
            rows.insert(0, copy.deepcopy(rows[data.draw(st.integers(0, len(rows) - 1))]))
        case _:
            rows.append(rows.pop(data.draw(st.integers(0, len(rows) - 1))))
    file.write_bytes(b"".join(_dumped(row) + b"\n" for row in rows))
    ask(line, tmp_path)


@settings(max_examples=20)
@given(line=st.sampled_from(ASKED), data=st.data())
def test_a_run_with_other_bytes(tmp_path: Path, line: list[str], data: Any) -> None:
    """One of its files is cut, spliced, empty, gone or no file."""
    with_runs(tmp_path)
    files = sorted(path for path in tmp_path.glob("*/*") if path.is_file())
    file = data.draw(st.sampled_from(files))
    held = file.read_bytes()
    at = data.draw(st.integers(0, len(held)))
    match data.draw(st.sampled_from(["cut", "splice", "gone", "folder", "link"])):
        case "cut":
            file.write_bytes(held[:at])
        case "splice":
            file.write_bytes(held[:at] + data.draw(st.binary(max_size=9)) + held[at + 3 :])
        case "gone":
            file.unlink()
        case "folder":
            file.unlink()
            file.mkdir()
        case _:
            file.unlink()
            file.symlink_to("/dev/zero")
    ask(line, tmp_path)


def _dumped(value: Any) -> bytes:
    """As JSON, numbers of any size and what is none among them."""
    return json.dumps(value).encode("utf-8", "surrogatepass")
