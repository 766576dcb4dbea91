"""The scripts by name: their text, their digest, and the replies that Python may rely on."""

from dataclasses import dataclass
from functools import cache
from hashlib import sha1
from importlib.resources import files

from flashsale.model import Outcome

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
}
"""What each code of seckill.lua means. A code that is not here raises KeyError."""

NO_SESSION = 8
"""The code of seckill.lua for a claim by nobody: it has no outcome, since it is none."""


@dataclass(frozen=True)
class Script:
    """One Lua script, ready for EVALSHA."""

    name: str
    text: str
    sha: str


@cache
def script(name: str) -> Script:
    """The script in `<name>.lua` beside this file."""
    text = files(__package__).joinpath(f"{name}.lua").read_text(encoding="utf-8")
    return Script(name, text, sha1(text.encode(), usedforsecurity=False).hexdigest())
