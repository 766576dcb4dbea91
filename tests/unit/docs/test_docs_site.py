"""The site builds with every link checked and needs no network; its reference is the code's."""

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from rig.documents import ROOT

from tools import reference


@pytest.mark.parametrize("name", ["commands.md", "settings.md", "scenario.md"])
def test_reference_pages_are_the_codes(name: str) -> None:
    there = (reference.FOLDER / name).read_text(encoding="utf-8")
    assert there == reference.pages()[name], "run `make docs`"


def test_every_setting_is_explained() -> None:
    page = (reference.FOLDER / "settings.md").read_text()
    for component in reference.components():
        for name, field in component.model_fields.items():
            assert f"| `{reference.variable(component, name)}` |" in page
            assert field.description


class _Fetched(HTMLParser):
    """Collects what a browser would fetch for a page by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.places: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag in ("script", "img", "iframe", "source") and given.get("src"):
            self.places.append(str(given["src"]))
        fetching = {"stylesheet", "icon", "preload", "preconnect", "manifest"}
        if tag == "link" and fetching & set((given.get("rel") or "").split()):
            self.places.append(str(given["href"]))


def test_site_builds_strictly_and_is_read_offline(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", tmp_path],
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    pages = sorted(tmp_path.rglob("*.html"))
    assert len(pages) > 20
    for page in pages:
        if page.name == "404.html":
            continue  # of a server; its places are absolute
        html = page.read_text(encoding="utf-8")
        fetched = _Fetched()
        fetched.feed(html)
        assert fetched.places
        for place in fetched.places:
            assert not re.match(r"(?:[a-z]+:)?//", place), f"{page.name}: {place}"
            assert (page.parent / place.partition("?")[0]).is_file(), f"{page.name}: {place}"
    for style in tmp_path.rglob("*.css"):
        assert not re.search(r"url\([\"']?(?:https?:)?//", style.read_text()), style.name
