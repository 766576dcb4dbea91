"""The house in figures: how many files a reader meets, how they lean on each other, `make house`.

    python -m tools.house [ROOT] [--json]

A *circle* is a set of modules that reach each other by imports, those for type checkers and those
inside functions among them. A *trip* is a numbered list of files in ARCHITECTURE.md.
"""

import argparse
import ast
import json
import re
import statistics
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

PACKAGE = "flashsale"
GROUND = (
    *("errors", "settings", "keys", "model", "telemetry", "files"),
    *("store_urls", "primaries", "asking", "failpoints", "books"),
)
SMALL = 40  # lines; fewer is a paragraph, seldom a chapter
_TRIP = re.compile(r"^## Trip \w+: (.+)$")
_FILE = re.compile(r"`([a-z_]+(?:/[a-z_]+)*\.(?:py|lua))`")


@dataclass
class House:
    """A package's modules (dotted names) and who imports whom."""

    root: Path
    lines: dict[str, int] = field(default_factory=dict)
    imports: dict[str, set[str]] = field(default_factory=dict)
    classes: dict[str, list[str]] = field(default_factory=dict)
    """The modules of each public class, by its name."""
    inner: list[str] = field(default_factory=list)
    """Imports inside functions, as `path:line`."""

    @classmethod
    def read(cls, root: Path) -> "House":
        """The house in `root`/flashsale."""
        house = cls(root)
        paths = sorted((root / PACKAGE).rglob("*.py"))
        house.lines = {_name(path, root): _length(path) for path in paths}
        for path in paths:
            house._look_into(path)
        return house

    def _look_into(self, path: Path) -> None:
        name, tree = _name(path, self.root), ast.parse(path.read_text(encoding="utf-8"))
        self.imports[name] = {there for node in ast.walk(tree) for there in self._named(node)}
        self.imports[name].discard(name)
        for each in tree.body:
            if isinstance(each, ast.ClassDef) and not each.name.startswith("_"):
                self.classes.setdefault(each.name, []).append(name)
        for function in ast.walk(tree):
            if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
                for node in ast.walk(function):
                    if isinstance(node, ast.Import | ast.ImportFrom):
                        self.inner.append(f"{path.relative_to(self.root)}:{node.lineno}")
        self.inner = sorted(set(self.inner))

    def _named(self, node: ast.AST) -> Iterator[str]:
        """The modules of the house that a statement imports."""
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in self.lines)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                if full in self.lines:
                    yield full
                elif node.module in self.lines:
                    yield node.module

    def with_one_importer(self) -> list[str]:
        """Modules that exactly one other imports: chapters, or paragraphs that lost theirs."""
        importers: dict[str, set[str]] = defaultdict(set)
        for name, there in self.imports.items():
            for other in there:
                importers[other].add(name)
        return sorted(name for name, whom in importers.items() if len(whom) == 1)

    def shared_names(self) -> dict[str, list[str]]:
        """Names that classes of several modules have, with those modules."""
        return {name: where for name, where in sorted(self.classes.items()) if len(where) > 1}

    def circles(self) -> list[list[str]]:
        """Sets of modules that import each other, however far round."""
        return circles(self.imports)

    def package_circles(self) -> list[list[str]]:
        """The same of packages, at every level: `flashsale.storm.attack` and its siblings."""
        found: list[list[str]] = []
        for parent in sorted({n.rpartition(".")[0] for n in self.lines} | {PACKAGE}):
            leans: dict[str, set[str]] = defaultdict(set)
            for name, there in self.imports.items():
                for other in there:
                    here, to = _child(name, parent), _child(other, parent)
                    if here and to and here != to:
                        leans[here].add(to)
            found += circles(leans)
        return found


def circles(leans: dict[str, set[str]]) -> list[list[str]]:
    """The strongly connected components of more than one node, by reachability."""
    reach = {node: _reached(node, leans) for node in leans}
    round_trips = {
        frozenset(o for o in there if node in reach.get(o, ())) | {node}
        for node, there in reach.items()
        if node in there
    }
    return sorted(sorted(circle) for circle in round_trips)


def _reached(start: str, leans: dict[str, set[str]]) -> set[str]:
    seen: set[str] = set()
    todo = list(leans.get(start, ()))
    while todo:
        node = todo.pop()
        if node not in seen:
            seen.add(node)
            todo += leans.get(node, ())
    return seen


def _child(name: str, parent: str) -> str:
    """The part of `parent` that `name` is in, "" if it is not below it."""
    if not name.startswith(parent + "."):
        return ""
    return parent + "." + name[len(parent) + 1 :].split(".")[0]


def _name(path: Path, root: Path) -> str:
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _length(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


def trips(root: Path) -> dict[str, list[str]]:
    """The files of each trip of ARCHITECTURE.md, in order, each once."""
    found: dict[str, list[str]] = {}
    files: list[str] | None = None
    for line in (root / "ARCHITECTURE.md").read_text(encoding="utf-8").splitlines():
        if match := _TRIP.match(line):
            files = found.setdefault(match[1], [])
        elif line.startswith("#"):
            files = None
        elif files is not None and re.match(r"\d+\. ", line):
            files += [name for name in _FILE.findall(line) if name not in files]
    return found


def figures(house: House) -> dict[str, object]:
    """What `make house` prints, by name."""
    sizes = [lines for name, lines in house.lines.items() if lines > 1]
    largest = max(house.lines, key=lambda name: house.lines[name])
    return {
        "files (without an __init__ of one line)": len(sizes),
        "lines": sum(house.lines.values()),
        "median file": int(statistics.median(sizes)),
        "largest file": f"{house.lines[largest]} ({largest})",
        f"files under {SMALL} lines": sum(1 < lines < SMALL for lines in sizes),
        "modules with one importer": len(house.with_one_importer()),
        "class names of several files": len(house.shared_names()),
        "circles of files": [" ↔ ".join(circle) for circle in house.circles()],
        "circles of packages": [" ↔ ".join(circle) for circle in house.package_circles()],
        "imports inside functions": len(house.inner),
        **{f"trip: {name}": len(files) for name, files in trips(house.root).items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("root", nargs="?", type=Path, default=Path(__file__).parents[1])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--names", action="store_true", help="name what is counted, too")
    options = parser.parse_args()
    house = House.read(options.root)
    found = figures(house)
    if options.json:
        print(json.dumps(found, indent=2))
        return
    for name, value in found.items():
        told = (
            (f"{len(value)}: {', '.join(value)}" if value else "none")
            if isinstance(value, list)
            else value
        )
        print(f"{name:44} {told}")
    if options.names:
        print(
            "\nunder 40 lines:",
            *(f"{n} {x}" for x, n in sorted(house.lines.items()) if 1 < n < SMALL),
            sep="\n  ",
        )
        print("one importer:", *house.with_one_importer(), sep="\n  ")
        shared = house.shared_names().items()
        print("class names:", *(f"{x} {', '.join(where)}" for x, where in shared), sep="\n  ")
        print("imports inside functions:", *house.inner, sep="\n  ")


if __name__ == "__main__":
    main()
