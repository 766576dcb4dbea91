"""The scripts by name, a call to one, and the replies that Python may rely on."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from hashlib import sha1
from importlib.resources import files

from flashsale.model import Outcome

Word = str | int | bytes
"""What a command is made of."""

REFUSED = "REFUSED"
"""How every script begins an error that it raises before its first write."""

CLAIM_OUTCOMES = {
    0: Outcome.SOLD,
    1: Outcome.SOLD_OUT,
    2: Outcome.DUPLICATE,
    3: Outcome.NOT_OPEN,
    4: Outcome.ENDED,
    5: Outcome.NOT_LOADED,
    6: Outcome.PAUSED,
    7: Outcome.SHED,
    9: Outcome.SHED,
}
"""What each code of seckill.lua means. A code that is not here raises KeyError."""

BEHIND = 9
"""The code of seckill.lua for a claim that a ledger refuses which may be behind; in the place of
the order id it says why. It is an answer to a claim, and to a replay it is none."""

NO_SESSION = 8
"""The code of seckill.lua for a claim by nobody: it has no outcome, since it is none."""


@dataclass(frozen=True)
class Script:
    """One Lua script, ready for EVALSHA."""

    name: str
    text: str
    sha: str


@dataclass(frozen=True, slots=True)
class Call:
    """One EVALSHA: a script with its keys and arguments."""

    script: Script
    keys: Sequence[str]
    args: Sequence[Word]

    def command(self) -> tuple[Word, ...]:
        """The words of the command."""
        return ("EVALSHA", self.script.sha, len(self.keys), *self.keys, *self.args)


@cache
def script(name: str) -> Script:
    """The script in `<name>.lua` beside this file."""
    text = files(__package__).joinpath(f"{name}.lua").read_text(encoding="utf-8")
    return Script(name, text, sha1(text.encode(), usedforsecurity=False).hexdigest())
