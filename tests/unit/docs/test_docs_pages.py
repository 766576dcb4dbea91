"""README's length, links, paths, variables, and the ten questions of a fresh reader."""

import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

import pytest
from rig.documents import DOCUMENTS, ROOT, anchors, links, spans
from ruamel.yaml import YAML

README, CONTRIBUTING = ROOT / "README.md", ROOT / "CONTRIBUTING.md"
README_LINES_MAX = 160
TOP = "flashsale|deploy|tools|tests|docs|benchmarks|scenarios"
_PATH = re.compile(rf"(?:{TOP})/[\w./-]*\w/?")
_VARIABLE = re.compile(r"FLASHSALE_[A-Z0-9_]*[A-Z0-9]")

each_document = pytest.mark.parametrize(
    "document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT))
)


def test_readme_is_one_screen_and_a_half() -> None:
    assert len(README.read_text().splitlines()) <= README_LINES_MAX


@each_document
def test_links_lead_somewhere(document: Path) -> None:
    for link in links(document):
        place, _, anchor = unquote(link).partition("#")
        there = (document.parent / place).resolve() if place else document
        assert there.is_file(), link
        if anchor:
            assert anchor in anchors(there), link


@each_document
def test_pages_of_the_site_link_pages_of_the_site(document: Path) -> None:
    if document.parent == ROOT:
        return
    for link in links(document):
        place = (document.parent / link.partition("#")[0]).resolve()
        assert place.is_relative_to(ROOT / "docs"), link


@each_document
def test_paths_exist(document: Path) -> None:
    for span in spans(document):
        if _PATH.fullmatch(span):
            assert (ROOT / span).exists(), span


def test_variables_exist() -> None:
    known = set(_VARIABLE.findall((ROOT / "docs/reference/settings.md").read_text()))
    for tool in (ROOT / "tools").glob("*.py"):
        known |= set(_VARIABLE.findall(tool.read_text()))
    for document in DOCUMENTS:
        for name in _VARIABLE.findall(document.read_text()):
            assert any(there.startswith(name) for there in known), f"{document.name}: {name}"


def test_every_page_is_reached_from_readme() -> None:
    seen, ahead = set(), [README]
    while ahead:
        page = ahead.pop()
        if page in seen or page.suffix != ".md":
            continue
        seen.add(page)
        ahead += [(page.parent / link.partition("#")[0]).resolve() for link in links(page)]
    assert set(DOCUMENTS) - {ROOT / "docs" / "index.md"} <= seen


# Ten questions.


def questions() -> Iterator[tuple[str, Path, str]]:
    """Each question of CONTRIBUTING.md, its page, and the words that stand there."""
    section = CONTRIBUTING.read_text().split("## Ten questions")[1].split("\n## ")[0]
    for row in re.findall(r"^\| (.*\?) \| \[.*\]\((\S+)\) \| (.*) \|$", section, re.MULTILINE):
        yield row[0], ROOT / row[1], row[2].removeprefix("`").removesuffix("`")


QUESTIONS = list(questions())


def test_there_are_ten() -> None:
    assert len({question for question, _, _ in QUESTIONS}) == 10


@pytest.mark.parametrize(("question", "page", "words"), QUESTIONS, ids=[q for q, _, _ in QUESTIONS])
def test_a_fresh_reader_finds_it(question: str, page: Path, words: str) -> None:
    linked = {(ROOT / link.partition("#")[0]).resolve() for link in links(README)}
    assert page in linked
    assert words in page.read_text()


# Pre-commit.


def test_hooks_run_what_make_check_runs_and_fetch_nothing() -> None:
    hooks = YAML(typ="safe").load((ROOT / ".pre-commit-config.yaml").read_text())
    entries = []
    for repository in hooks["repos"]:
        assert repository["repo"] == "local"
        for hook in repository["hooks"]:
            assert hook["language"] == "system"
            entries.append(hook["entry"])
    makefile = (ROOT / "Makefile").read_text()
    recipe = makefile.split("\ncheck:")[1].split("\n\n")[0].replace("$(BIN)", ".venv/bin")
    asked = [line.strip().removesuffix(" .") for line in recipe.splitlines()[1:]]
    assert entries == asked
