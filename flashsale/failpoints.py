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
        "rows.begun": "the generation is held, in an open transaction",
        "rows.inserted": "rows are inserted",
        "rows.units_taken": "their units are taken",
        "rows.positioned": "the stream's position is noted; COMMIT is next",
        "rows.committed": "the transaction is committed",
        "worker.unlocked": "the locks are given back; the acknowledgement is next",
        "worker.acknowledged": "the entries are acknowledged, and the next may have been read",
        # an entry that can never become a row
        "worker.setting_aside": "it is about to become a dead letter",
        "worker.set_aside": "it is one, and acknowledged",
        # a batch of claims
        "claim.sending": "its ids are leased, and it is about to be sent",
        "claim.answered": "the answers have come, and nobody was told",
        # a claim whose answer was lost
        "settlement.replaying": "its batch is about to be sent again",
        "settlement.replayed": "the answer has come, and nobody was told",
        # a permit, whoever writes it
        "permit.superseding": "the ledger is not behind; a new generation is next",
        "permit.granting": "and not behind that, either; the permit is next",
        "permit.granted": "the permit is written, and nobody was told",
        # a cancellation by its user, and what a sweeper does
        "cancel.committed": "the order is cancelled in MySQL, and the unit owed to the ledger",
        "cancel.returned": "the ledger has the unit back, and MySQL still owes it",
        "sweep.timed_out": "unpaid orders are cancelled in MySQL, and their units owed",
        "sweep.returned": "the ledger has the units back, and MySQL still owes them",
        # a change of a sale
        "sale.planned": "it is in the journal; the ledger is next",
        "sale.changed": "the ledger has it, and the journal does not know",
        # a rebuild, in the order of its steps
        "rebuild.closed": "all sales are closed",
        "rebuild.surveyed": "what differs is known, and nothing is repaired",
        "rebuild.stream": "the stream is right; the sales are next",
        "rebuild.receipts": "a sale's receipts and set are right; its stock and terms are next",
        "rebuild.stock": "a sale's stock and terms are right; its lost orders are next",
        "rebuild.requeued": "its lost orders are in the stream again",
        "rebuild.drawn": "MySQL has the new epoch, and the ledger the old one",
        "rebuild.renewed": "both have it, and no sale is closed; the permit is next",
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
