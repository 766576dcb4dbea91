"""The house of STYLE.md, enforced: who may import whom, who spells keys, what must be explained."""

import ast
import re
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path

import click
import pytest
import typer
from pydantic.fields import FieldInfo

from flashsale import keys
from flashsale.lua.scripts import CLAIM_OUTCOMES, NO_SESSION
from flashsale.settings import Settings
from tools.house import GROUND, circles, trips

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "flashsale"
SCRIPTS = sorted(PACKAGE.glob("lua/*.lua"))

FLOORS = (
    GROUND,
    ("lua",),
    ("storage",),
    ("locks",),
    ("cache",),
    ("scenario",),
    ("run",),
    ("orders", "seckill", "catalog", "accounts"),
    ("stack", "server", "seeding", "storm", "verify", "report"),
    ("doctor", "observe", "faults"),
    ("campaign",),
    ("cli", "__main__"),
)
"""From the ground up. An import goes down, or stays on its floor without coming back."""

STORM_FLOORS = (("plan",), ("figures",), ("attack",), ("crew",), ("storm",))
"""The same inside `storm/`: `figures` counts what `plan` planned, `storm.py` is the roof."""

FLOOR_OF = {room: height for height, floor in enumerate(FLOORS) for room in floor}
ROOF = len(FLOORS)
"""The package itself, whose public names come from every floor."""
STRANGERS = ("server", "storm", "verify")
DATABASE_DRIVERS = ("redis", "hiredis", "pymysql", "sqlalchemy")


@cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def _modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def _name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _room(module: str) -> str:
    """The part of the house a module is in, "" for the package itself."""
    return [*module.split("."), ""][1]


@cache
def _imports(path: Path) -> tuple[str, ...]:
    """Every module that a file imports, wherever in the file, by its full name."""
    return tuple(_found_imports(path))


def _found_imports(path: Path) -> Iterator[str]:
    home = _name(path).split(".")
    if path.name != "__init__.py":
        home = home[:-1]
    for node in ast.walk(_tree(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = home[: len(home) - node.level + 1] if node.level else []
            base = ".".join([*start, *([node.module] if node.module else [])])
            # `from flashsale import keys` imports flashsale.keys; a class is no module.
            yield from (f"{base}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and _called(node.func).endswith("import_module"):
            yield from (str(told.value) for told in node.args if isinstance(told, ast.Constant))


def _called(function: ast.expr) -> str:
    """The last word of its name."""
    return getattr(function, "attr", "") or getattr(function, "id", "")


def _house_imports(path: Path) -> set[str]:
    return {
        _room(name) for name in _imports(path) if name.startswith("flashsale.") and _room(name)
    } - {"__version__"}


def _foreign_imports(path: Path) -> set[str]:
    return {name.split(".")[0] for name in _imports(path)}


def _of(room: str) -> list[Path]:
    return [path for path in _modules() if _room(_name(path)) == room]


def test_every_part_has_its_place() -> None:
    rooms = {_room(_name(path)) for path in _modules()} - {""}
    assert rooms <= set(FLOOR_OF), "give it a floor above, and in STYLE.md"


def test_imports_point_down() -> None:
    up = {
        f"{_name(path)} → {there}"
        for path in _modules()
        for there in _house_imports(path)
        if FLOOR_OF[there] > FLOOR_OF.get(_room(_name(path)), ROOF)
    }
    assert not up


def _storm_room(module: str) -> str:
    """The part of `storm/` that a module is in: a package, or a file beside them."""
    return [*module.split("."), "", ""][2]


def _up(storm_imports: Iterable[tuple[str, str]]) -> set[str]:
    """Of pairs of a module in `storm/` and one that it imports, those that go up."""
    height = {room: floor for floor, rooms in enumerate(STORM_FLOORS) for room in rooms}
    return {
        f"{here} → {there}"
        for here, there in storm_imports
        if height[_storm_room(there)] > height[_storm_room(here)]
    }


def test_imports_inside_storm_point_down() -> None:
    rooms = {_storm_room(_name(path)) for path in _of("storm")} - {""}
    assert rooms == {room for floor in STORM_FLOORS for room in floor}, "give it a floor above"
    inside = [
        (_name(path), there)
        for path in _of("storm")
        for there in _imports(path)
        if _room(there) == "storm" and _storm_room(there) in rooms
    ]
    assert not _up(inside)


@pytest.mark.parametrize(
    ("here", "there", "goes_up"),
    [
        ("flashsale.storm.plan.plan", "flashsale.storm.attack.wire.Connection", True),
        ("flashsale.storm.plan.plan", "flashsale.storm.figures.figures", True),
        ("flashsale.storm.figures.judging", "flashsale.storm.crew.shard.Shard", True),
        ("flashsale.storm.crew.crew", "flashsale.storm.storm.Assignment", True),
        ("flashsale.storm.storm", "flashsale.storm.crew.crew.Crew", False),
        ("flashsale.storm.figures.generator", "flashsale.storm.plan.plan.Plan", False),
        ("flashsale.storm.attack.wire", "flashsale.storm.attack.alarm", False),
    ],
)
def test_an_import_that_goes_up_inside_storm_is_found(here: str, there: str, goes_up: bool) -> None:
    assert bool(_up([(here, there)])) is goes_up


def test_no_files_import_each_other_in_a_circle() -> None:
    """Wherever the import stands: one inside a function hides a circle, and does not end it."""
    files = {_name(path): path for path in _modules()}
    imports = {
        here: {
            file
            for there in _imports(path)
            if (file := there if there in files else there.rpartition(".")[0]) in files
        }
        for here, path in files.items()
    }
    assert not circles(imports)


def test_a_circle_of_files_is_found() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == [["a", "b", "c"]]
    assert not circles({"a": {"b", "c"}, "b": {"c"}, "c": set()})


TRIP_FILES_MAX = {"request": 12, "stream": 10, "scenario": 19, "snapshot": 14}


def test_trips_are_short_and_their_files_exist() -> None:
    """That each but the storm's names every file that it passes is tested where it is walked."""
    found = trips(ROOT)
    assert [name.split()[0] for name in found] == list(TRIP_FILES_MAX)
    for (name, files), most in zip(found.items(), TRIP_FILES_MAX.values(), strict=True):
        assert 1 < len(files) <= most, name
        assert all((PACKAGE / file).is_file() for file in files), name


def test_no_two_neighbours_lean_on_each_other() -> None:
    leans: dict[str, set[str]] = {room: set() for room in FLOOR_OF}
    for path in _modules():
        room = _room(_name(path))
        if room:
            leans[room] |= {t for t in _house_imports(path) if FLOOR_OF[t] == FLOOR_OF[room]}
    reach = {room: set(there) - {room} for room, there in leans.items()}
    for _ in FLOOR_OF:
        reach = {r: t.union(*(reach[n] for n in t)) for r, t in reach.items()}
    assert not {room for room, there in reach.items() if room in there} - set(GROUND)


def test_nobody_imports_the_command_line() -> None:
    for path in _modules():
        if _room(_name(path)) not in ("cli", "__main__"):
            assert "cli" not in _house_imports(path), _name(path)


@pytest.mark.parametrize("room", STRANGERS)
def test_server_storm_and_verify_are_strangers(room: str) -> None:
    others = set(STRANGERS) - {room}
    for path in _of(room):
        assert not others & _house_imports(path), _name(path)


@pytest.mark.parametrize(
    ("room", "toolkit"),
    [
        ("scenario", ()),
        ("run", ("scenario",)),
        ("storm", ("scenario", "run")),
        ("verify", ("run",)),
    ],
)
def test_toolkit_imports_nothing_that_sells(room: str, toolkit: Sequence[str]) -> None:
    allowed = {room, *toolkit, *GROUND}
    for path in _of(room):
        assert _house_imports(path) <= allowed, _name(path)


def test_the_judge_shares_file_names_with_a_run_and_nothing_else() -> None:
    """Its own reader of attempts is on purpose: it does not look with the eyes of the accused."""
    for path in _of("verify"):
        shared = {name for name in _imports(path) if _room(name) == "run"}
        assert all(name.startswith("flashsale.run.folder.") for name in shared), _name(path)
    (folder,) = (path for path in _of("run") if path.name == "folder.py")
    assert _house_imports(folder) <= set(GROUND)


def test_storm_knows_http_alone() -> None:
    for path in _of("storm"):
        assert not _foreign_imports(path) & set(DATABASE_DRIVERS), _name(path)
        assert "keys" not in _house_imports(path), _name(path)


def test_drivers_errors_end_in_storage() -> None:
    """Whoever sells knows Unavailable and Indeterminate, not the drivers' exceptions."""
    for room in ("locks", "cache", "accounts", "catalog", "seckill", "orders", "server"):
        for path in _of(room):
            errors = {name for name in _imports(path) if name.startswith("redis.exceptions")}
            assert not errors, _name(path)
            assert not _foreign_imports(path) & {"pymysql", "hiredis"}, _name(path)


# Keys -------------------------------------------------------------------------------------------


def _docstrings(tree: ast.Module) -> set[int]:
    """Every string that stands alone as a statement: documentation, not data."""
    return {
        id(node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }


def _literals(path: Path) -> Iterator[tuple[int, str]]:
    tree = _tree(path)
    documentation = _docstrings(tree)
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and id(node) not in documentation
        ):
            yield node.lineno, node.value


def _key_pattern() -> re.Pattern[str]:
    spelled = [text for _, text in _literals(PACKAGE / "keys.py") if ":" in text or "." in text]
    heads = {text.split(":")[0] for text in spelled if ":" in text and "." not in text}
    families = {f"{head}:" for head in heads if head}
    whole = {text for text in spelled if "." in text}
    names = "|".join(re.escape(text) for text in sorted(families | whole))
    return re.compile(rf"(?<![\w.:/])(?:{names})(?!\s)")


def test_key_pattern_catches_every_key() -> None:
    pattern = _key_pattern()
    samples: Sequence[str] = [
        keys.seckill_stock(1),
        keys.seckill_order(1),
        keys.seckill_receipt(1),
        keys.seckill_sale(1),
        keys.login_token("t"),
        keys.order_counter("2026:01:01"),
        keys.order_lock(1),
        keys.STREAM_ORDERS,
        keys.STREAM_DEAD,
        keys.LOADED_SALES,
        keys.LOCK_FENCE,
        keys.CACHE_BOOT,
        "seckill:",
    ]
    assert all(pattern.search(sample) for sample in samples)
    assert not pattern.search("expected redis://host:port/db")
    assert not pattern.search("from flashsale.seckill.claims import Claims")


def test_keys_are_spelled_in_one_place() -> None:
    pattern = _key_pattern()
    spelled = [
        f"{_name(path)}:{line} {text!r}"
        for path in _modules()
        if path.name != "keys.py"
        for line, text in _literals(path)
        if pattern.search(text)
    ]
    assert not spelled, "keys.py does that"


# Lua --------------------------------------------------------------------------------------------


def _head(script: Path) -> str:
    lines = script.read_text(encoding="utf-8").splitlines()
    comment = []
    for line in lines[1:]:
        if not line.startswith("--"):
            break
        comment.append(line[2:].strip())
    return "\n".join(comment)


def _code(script: Path) -> str:
    text = script.read_text(encoding="utf-8")
    return re.sub(r"--[^\n]*", "", text.partition("\n")[2])


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
class TestLua:
    """One verb a file, and a head that says what a caller may rely on."""

    def test_head_says_all(self, script: Path) -> None:
        first = script.read_text(encoding="utf-8").splitlines()[0]
        head = _head(script)
        assert first.startswith("#!lua"), "Redis checks the flags of a script that begins so"
        assert re.match(r"[A-Z][\w -]+: \S|[A-Z][\w ]+ \S", head), "the purpose comes first"
        for word in ("Guarantee:", "KEYS", "ARGV", "Replies"):
            assert re.search(rf"^{word}", head, re.MULTILINE), f"the head lacks {word}"

    def test_head_names_every_key_and_argument(self, script: Path) -> None:
        head, code = _head(script), _code(script)
        for array in ("KEYS", "ARGV"):
            used = set(re.findall(rf"{array}\[(\d+)\]", code))
            told = set(re.findall(rf"^{array}\[(\d+)\]", head, re.MULTILINE))
            assert used <= told, f"{array} {sorted(used - told)} are not in the head"

    def test_spells_no_key(self, script: Path) -> None:
        assert not _key_pattern().search(_code(script)), "keys come through KEYS"

    def test_is_loaded_by_name(self, script: Path) -> None:
        call = f'script("{script.stem}")'
        assert any(call in path.read_text(encoding="utf-8") for path in _modules()), call


def test_seckill_head_tells_every_code() -> None:
    replies = _head(PACKAGE / "lua" / "seckill.lua").partition("Replies")[2]
    told = {int(code) for code in re.findall(r"(?<![\w.])(\d) [a-z]", replies)}
    assert told == {*CLAIM_OUTCOMES, NO_SESSION}


# Settings ---------------------------------------------------------------------------------------


def _settings() -> list[type[Settings]]:
    import importlib

    for path in _modules():
        if "(Settings)" in path.read_text(encoding="utf-8"):
            importlib.import_module(_name(path))
    found: list[type[Settings]] = []
    waiting = list(Settings.__subclasses__())
    while waiting:
        kind = waiting.pop()
        found.append(kind)
        waiting += kind.__subclasses__()
    return sorted(found, key=lambda kind: kind.__qualname__)


def _fields() -> list[tuple[str, type[Settings], FieldInfo]]:
    return [
        (f"{kind.__name__}.{name}", kind, field)
        for kind in _settings()
        for name, field in kind.model_fields.items()
    ]


@pytest.mark.parametrize(("name", "kind", "field"), _fields(), ids=lambda value: str(value)[:60])
def test_settings_are_explained_frozen_and_bounded(
    name: str, kind: type[Settings], field: FieldInfo
) -> None:
    assert field.description, f"{name} has no line of meaning"
    assert kind.model_config.get("frozen"), f"{kind.__name__} can be changed"
    if field.annotation in (int, float):
        assert field.metadata, f"{name} takes any number: give it a bound"


# Commands ---------------------------------------------------------------------------------------


def _commands() -> list[tuple[str, click.Command]]:
    from flashsale.cli.tree import tree

    def walk(path: str, command: click.Command) -> Iterator[tuple[str, click.Command]]:
        yield path, command
        for name, child in getattr(command, "commands", {}).items():
            yield from walk(f"{path} {name}", child)

    return list(walk("flashsale", typer.main.get_command(tree())))


@pytest.mark.parametrize(("path", "command"), _commands(), ids=lambda value: str(value)[:40])
def test_every_command_is_explained(path: str, command: click.Command) -> None:
    assert command.help, f"`{path}` has no help"
    for option in command.params:
        if option.name not in ("help", "install_completion", "show_completion"):
            assert getattr(option, "help", None), f"`{path}` does not explain {option.opts}"


@pytest.mark.parametrize("path", [path for path, _ in _commands()])
def test_every_command_stands_in_a_document(path: str) -> None:
    """In one that somebody wrote: the reference has them all."""
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    text = "\n".join(page.read_text(encoding="utf-8") for page in pages)
    assert re.search(rf"\b{re.escape(path)}\b", text), f"no document mentions `{path}`"
