"""The documents: their blocks, links, headings and code spans, as a Markdown parser finds them."""

import re
import shlex
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import TypeAlias

from markdown.extensions.toc import slugify
from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
REFUSED = "# refused: "
"""How a block begins that is meant to fail, with the message behind it."""

Words: TypeAlias = list[str]


@dataclass(frozen=True)
class Block:
    """A fenced block, and where it stands."""

    document: Path
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.document.relative_to(ROOT)}:{self.line}"

    @property
    def refused(self) -> str | None:
        """The message that it is meant to fail with; None for one that is right."""
        head = self.text.partition("\n")[0]
        return head.removeprefix(REFUSED) if head.startswith(REFUSED) else None

    def commands(self) -> Iterator[tuple[Words, str]]:
        """The words of each command of a console block, and the output shown under it."""
        for part in re.split(r"^\$ ", self.text, flags=re.MULTILINE)[1:]:
            line, _, output = part.replace("\\\n", " ").partition("\n")
            for command in re.split(r"\s(?:\||&&)\s", line):
                yield shlex.split(command, comments=True), output


@cache
def _tokens(document: Path) -> list[Token]:
    return MarkdownIt("commonmark").enable("table").parse(document.read_text(encoding="utf-8"))


def _inlines(document: Path, kind: str) -> Iterator[Token]:
    for token in _tokens(document):
        yield from (child for child in token.children or () if child.type == kind)


def blocks(*languages: str) -> list[Block]:
    """Every block of these languages, of every document; without a language, all."""
    found = [
        Block(document, (token.map or [0])[0] + 1, token.info.strip(), token.content)
        for document in DOCUMENTS
        for token in _tokens(document)
        if token.type == "fence"
    ]
    return [block for block in found if not languages or block.language in languages]


def links(document: Path) -> list[str]:
    """Where its links and pictures lead."""
    hrefs = [str(token.attrs["href"]) for token in _inlines(document, "link_open")]
    return [*hrefs, *(str(token.attrs["src"]) for token in _inlines(document, "image"))]


def spans(document: Path) -> list[str]:
    """Its code spans."""
    return [token.content for token in _inlines(document, "code_inline")]


@cache
def anchors(document: Path) -> frozenset[str]:
    """What its headings are linked by."""
    tokens = _tokens(document)
    seen: Counter[str] = Counter()
    found = set()
    for head, text in pairwise(tokens):
        if head.type == "heading_open":
            words = "".join(child.content for child in text.children or ())
            slug = slugify(words, "-")
            found.add(slug if not seen[slug] else f"{slug}_{seen[slug]}")
            seen[slug] += 1
    return frozenset(found)
