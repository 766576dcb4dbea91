"""Named points between two steps, at which a test ends, delays or breaks whoever comes by.

Nothing in the product arms one, and no setting does: an unarmed point is a look at an empty
dictionary, a batch and not a claim at a time. Points of the claim path lie where a reply was lost.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import TypeAlias

Act: TypeAlias = Callable[[], None]

POINTS: Mapping[str, str] = MappingProxyType(
    {
        # a batch of orders, in the order of its steps
        "worker.read": "entries were given to the worker, and nothing is done yet",
        "worker.locked": "the users' locks are taken",
        "rows.inserted": "rows are inserted, in an open transaction",
        "rows.units_taken": "their units are taken",
        "rows.positioned": "the stream's position is noted; COMMIT is next",
        "rows.committed": "the transaction is committed",
        "worker.unlocked": "the locks are given back; the acknowledgement is next",
        "worker.acknowledged": "the entries are acknowledged, and the next may have been read",
        # an entry that can never become a row
        "worker.setting_aside": "it is about to become a dead letter",
        "worker.set_aside": "it is one, and acknowledged",
        # a claim whose answer was lost
        "settlement.replaying": "its batch is about to be sent again",
        "settlement.replayed": "the answer has come, and nobody was told",
    }
)
"""Every point and what holds there."""

_armed: dict[str, Act] = {}


def reach(point: str) -> None:
    """Do what was armed at this point; as a rule nothing."""
    if _armed and (act := _armed.get(point)) is not None:
        act()


def arm(point: str, act: Act) -> None:
    """Have `act` done at this point, in this process, from now on. Raises KeyError."""
    POINTS[point]
    _armed[point] = act


@contextmanager
def armed(point: str, act: Act) -> Iterator[None]:
    """Have `act` done at this point while the block runs. Raises KeyError."""
    arm(point, act)
    try:
        yield
    finally:
        del _armed[point]
