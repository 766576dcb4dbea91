"""The journal in MySQL: who did what to a sale or an order, when, why, before and after.

Lines are added and never changed. A change of a sale concerns two stores, so it is written down
before it is made (`planned`) and ended by a second line (`done` or `refused`) that names the first:
whoever finds a change without its end can finish it, and of two who end it one fails.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import Connection, Row, Select, and_, func, insert, or_, select

from flashsale.storage.tables import journal

REASON_MAX, ACTOR_MAX = 512, 128
"""Characters that a line has room for."""


class Action(StrEnum):
    """What is done: the first five to a sale, the others to an order."""

    OPEN = "open"
    PAUSE = "pause"
    RESUME = "resume"
    CLOSE = "close"
    RESTOCK = "restock"
    RETRY = "retry"
    RELEASE = "release"


class ChangeStep(StrEnum):
    """How far it is."""

    PLANNED = "planned"
    DONE = "done"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Line:
    """One line. `number` is MySQL's, 0 before it is written; `ends` is the planned line it ends.

    `was` and `becomes` are states, or the initial units where the action is a restock.
    """

    action: Action
    voucher_id: int
    actor: str
    reason: str = ""
    step: ChangeStep = ChangeStep.DONE
    was: str = ""
    becomes: str = ""
    units: int = 0
    order_id: int | None = None
    ends: int | None = None
    number: int = 0
    at: datetime | None = None

    def to_json(self) -> dict[str, Any]:
        """As commands print it."""
        return {
            "number": self.number,
            "at": self.at.isoformat(timespec="milliseconds") if self.at else None,
            "actor": self.actor,
            "action": self.action,
            "step": self.step,
            "ends": self.ends,
            "voucher_id": self.voucher_id,
            "order_id": None if self.order_id is None else str(self.order_id),
            "units": self.units,
            "was": self.was,
            "becomes": self.becomes,
            "reason": self.reason,
        }


@dataclass(frozen=True, slots=True)
class Standing:
    """What MySQL says of a sale in the ledger: its state, and the last change that MySQL's own
    figures have in them."""

    state: str = "open"
    change: int = 0


def add(connection: Connection, line: Line) -> int:
    """Write a line; its number. Ending a change that was ended before is a duplicate key."""
    values = {
        "ends": line.ends,
        "step": line.step,
        "action": line.action,
        "voucher_id": line.voucher_id,
        "order_id": line.order_id,
        "units": line.units,
        "was": line.was,
        "becomes": line.becomes,
        "actor": line.actor[:ACTOR_MAX],
        "reason": line.reason[:REASON_MAX],
    }
    return int(connection.execute(insert(journal).values(values)).lastrowid)


def unended(connection: Connection, voucher_id: int | None = None) -> list[Line]:
    """Changes that were planned and not ended, of one sale or of all, the oldest first."""
    ending = journal.alias()
    query = (
        select(journal)
        .outerjoin(ending, ending.c.ends == journal.c.id)
        .where(journal.c.step == ChangeStep.PLANNED, ending.c.id.is_(None))
        .order_by(journal.c.id)
    )
    if voucher_id is not None:
        query = query.where(journal.c.voucher_id == voucher_id)
    return _lines(connection, query)


def ending_of(connection: Connection, number: int) -> Line | None:
    """The line that ended the planned line of this number."""
    found = _lines(connection, select(journal).where(journal.c.ends == number))
    return found[0] if found else None


def of_sale(connection: Connection, voucher_id: int, most: int) -> list[Line]:
    """The last lines of a sale and its orders, the oldest of them first."""
    query = select(journal).where(journal.c.voucher_id == voucher_id)
    return _lines(connection, query.order_by(journal.c.id.desc()).limit(most))[::-1]


def of_order(connection: Connection, order_id: int) -> list[Line]:
    """Every line of an order."""
    query = select(journal).where(journal.c.order_id == order_id)
    return _lines(connection, query.order_by(journal.c.id))


def restocked(connection: Connection) -> Mapping[int, int]:
    """By voucher, the units by which restocks have moved what MySQL offers, where there were any.

    One upwards is in MySQL's figures once it is planned, one downwards once it is done.
    """
    units = journal.c.units
    counted = or_(
        and_(units > 0, journal.c.step == ChangeStep.PLANNED),
        and_(units < 0, journal.c.step == ChangeStep.DONE),
    )
    query = (
        select(journal.c.voucher_id, func.sum(units).label("units"))
        .where(journal.c.action == Action.RESTOCK, counted)
        .group_by(journal.c.voucher_id)
    )
    return {row.voucher_id: int(row.units) for row in connection.execute(query)}


def standings(connection: Connection) -> Mapping[int, Standing]:
    """What the ledger's sales have to start from, by voucher; those without a line are missing.

    A restock upwards is in MySQL's figures once it is planned, one downwards once it is done.
    """
    ending = journal.alias()
    counted = or_(ending.c.id.is_not(None), journal.c.units > 0)
    planned = (
        select(journal.c.voucher_id, func.max(journal.c.id).label("number"))
        .outerjoin(ending, ending.c.ends == journal.c.id)
        .where(journal.c.step == ChangeStep.PLANNED, counted)
        .group_by(journal.c.voucher_id)
    )
    changes = {row.voucher_id: row.number for row in connection.execute(planned)}
    last = (
        select(func.max(journal.c.id))
        .where(journal.c.step == ChangeStep.DONE, journal.c.ends.is_not(None))
        .where(journal.c.action != Action.RESTOCK)
        .group_by(journal.c.voucher_id)
    )
    query = select(journal.c.voucher_id, journal.c.becomes).where(journal.c.id.in_(last))
    states = {row.voucher_id: row.becomes for row in connection.execute(query)}
    return {
        voucher: Standing(states.get(voucher, "open"), change)
        for voucher, change in changes.items()
    }


def _lines(connection: Connection, query: Select[*tuple[Any, ...]]) -> list[Line]:
    return [_line(row) for row in connection.execute(query)]


def _line(row: Row[*tuple[Any, ...]]) -> Line:
    return Line(
        action=Action(row.action),
        voucher_id=row.voucher_id,
        actor=row.actor,
        reason=row.reason,
        step=ChangeStep(row.step),
        was=row.was,
        becomes=row.becomes,
        units=row.units,
        order_id=row.order_id,
        ends=row.ends,
        number=row.id,
        at=row.create_time.replace(tzinfo=UTC),
    )
