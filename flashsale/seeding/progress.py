"""How seeding tells what it is at; a terminal, a log or nobody may listen."""

from typing import Protocol


class Progress(Protocol):
    """Stages follow one another: each begins with its total and advances up to it."""

    def begin(self, stage: str, total: int) -> None:
        """A stage of `total` steps begins; the one before it has ended."""

    def advance(self, steps: int) -> None:
        """The current stage is `steps` further."""

    def note(self, line: str) -> None:
        """Something worth a line of its own."""


class Silent:
    """Tells nobody."""

    def begin(self, stage: str, total: int) -> None: ...
    def advance(self, steps: int) -> None: ...
    def note(self, line: str) -> None: ...
