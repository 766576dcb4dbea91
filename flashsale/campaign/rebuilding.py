"""`rebuild` without a command line: what a ledger lacks, what was done about it, what is gone."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import structlog
from redis import Redis
from sqlalchemy import Engine, select

from flashsale.errors import UsageError, ViolationError
from flashsale.model import Outcome, parse_id
from flashsale.run.attempts_file import lines_of
from flashsale.run.folder import ATTEMPTS_FILE
from flashsale.seckill.control import SaleControl, UnfinishedError
from flashsale.seckill.permit import BooksComparison, moment
from flashsale.seckill.queue import portions
from flashsale.seckill.rebuild import Rebuild, Rebuilt
from flashsale.seckill.survey import SaleRepair, Survey, survey
from flashsale.seeding.stores import StoreUrls, opened
from flashsale.storage.mysql import transaction
from flashsale.storage.roles import Ledgers
from flashsale.storage.tables import voucher_order

log = structlog.get_logger(__name__)

_AT_ONCE = 1_000


class Difference(NamedTuple):
    """One thing that is not as it ought to be, and what a rebuild does about it."""

    what: str
    found: str
    cure: str


@dataclass(frozen=True)
class RebuildReport:
    """What was found, what was done (None in a dry run), and acknowledged orders that are gone
    (None where no run was named)."""

    found: Sequence[Survey]  # one of each lane
    differences: Sequence[Difference]
    done: Rebuilt | None
    gone: Sequence[int] | None

    @property
    def oversold(self) -> int:
        """Units that are held beyond those there are."""
        return sum(sale.oversold for survey in self.found for sale in survey.broken)

    @property
    def doubled(self) -> int:
        """Live rows of users who have another one of the same sale."""
        return sum(sale.doubled for survey in self.found for sale in survey.broken)

    @property
    def is_needed(self) -> bool:
        """Whether there was anything that a rebuild does."""
        return any(survey.is_needed for survey in self.found)


def rebuild(urls: StoreUrls, *, apply: bool, run: Path | None = None) -> RebuildReport:
    """Look, and with `apply` repair. Raises UnreachableError, or UsageError or ViolationError where
    it cannot be done now; what was begun is gone on with by the next call."""
    acknowledged = None if run is None else _acknowledged(run)
    with opened(urls) as stores:
        lanes = [BooksComparison(ledger, stores.pool) for ledger in stores.ledgers.clients]
        if apply:
            finish_changes(stores.pool, stores.ledgers)
        found = [survey(books) for books in lanes]
        gone = None
        if acknowledged is not None:
            gone = acknowledged_and_gone(lanes[0], acknowledged, *found)
        done = _together([Rebuild(books).apply() for books in lanes]) if apply else None
        if done is not None:
            finish_changes(stores.pool, stores.ledgers)
    told = [difference for one in found for difference in differences(one)]
    return RebuildReport(found, told, done, gone)


def _together(lanes: Sequence[Rebuilt]) -> Rebuilt:
    """What was done in all lanes."""
    return Rebuilt(
        max(one.rounds for one in lanes),
        sum(one.requeued for one in lanes),
        " ".join(one.permit for one in lanes),
    )


def finish_changes(pool: Engine, ledger: Redis | Ledgers) -> None:
    """Changes of sales that were cut short, where the ledger still knows the sale. What cannot be
    finished now can be once the ledger follows MySQL."""
    control = SaleControl(pool, ledger, "rebuild")
    for voucher_id in control.unfinished():
        try:
            control.finish(voucher_id)
        except (ViolationError, UnfinishedError) as error:
            log.warning("a change is not finished", voucher=voucher_id, why=str(error))


def _acknowledged(run: Path) -> list[int]:
    """The orders that a run's users were told of."""
    path = run / ATTEMPTS_FILE
    orders: dict[int, None] = {}
    try:
        for line in lines_of(path):
            if line["kind"] in ("result", "resolved") and line.get("outcome") == Outcome.SOLD:
                order = parse_id(str(line.get("order") or ""))
                if order is not None:
                    orders[order] = None
    except OSError as error:
        raise UsageError(
            f"--run: {path} cannot be read ({error.strerror}); name the folder of a storm's run"
        ) from None
    except ValueError as error:
        raise UsageError(f"--run: {error}; name the folder of a storm's run") from None
    return list(orders)


def acknowledged_and_gone(
    books: BooksComparison, orders: Iterable[int], *found: Survey
) -> list[int]:
    """Of these acknowledged orders, the ids of those that are neither rows nor on their way."""
    gone: list[int] = []
    kept = {order for survey in found for order in survey.kept}
    for some in portions((order for order in orders if order not in kept), _AT_ONCE):
        query = select(voucher_order.c.id).where(voucher_order.c.id.in_(some))
        with transaction(books.pool) as connection:
            rows = set(connection.execute(query).scalars())
        gone += [order for order in some if order not in rows]
    return sorted(gone)


def differences(found: Survey) -> Iterator[Difference]:
    """In what the ledger differs from what it ought to be, for a reader. Pure."""
    cures = {
        "epoch": "a new epoch in both stores",
        "stream": f"the stream goes on after {moment(found.mysql.position)}",
        "counter": "the counter goes on beyond MySQL's",
    }
    for name, told in found.mistyped.items():
        yield Difference(name, told, "deleted, and made anew; what else differs is looked for then")
    for reason in found.reasons:
        yield Difference(reason.what, reason.told, cures[reason.what])
    if found.ledger.last < found.mysql.position:
        lost = f"{moment(found.ledger.last)} to {moment(found.mysql.position)}"
        yield Difference("lost window", f"the ledger remembers nothing of {lost}", "see --run")
    if found.ledger.closed:
        yield Difference("closed", found.ledger.closed, "the sales are opened")
    if found.is_spent:
        yield Difference("stream", "its last possible entry is written", "it is made anew")
    elif not found.has_group:
        yield Difference("queue", "the workers' group is gone", "it is made, and reads all again")
    for repair in found.repairs:
        yield from _of_sale(repair)
    for sale in found.broken:
        yield from _of_broken(sale)
    sales_lost = {terms.voucher_id: terms for terms in found.lost}
    for voucher_id in found.strangers:
        told, cure = "MySQL does not know it", "it is left as it is"
        if terms := sales_lost.get(voucher_id):
            told = "gone from tb_seckill_voucher"
            cure = f"{terms.initial:,} units, {terms.stock:,} left, by the ledger's terms"
        yield Difference(f"sale {voucher_id}", told, cure)


def _of_sale(repair: SaleRepair) -> Iterator[Difference]:
    what = f"sale {repair.terms.voucher_id}"
    if repair.units is not None:
        terms = repair.terms
        told = f"MySQL: {terms.stock:,} units left, {terms.live_orders:,} live rows"
        yield Difference(what, told, f"{repair.units:,} left of {terms.initial:,} in MySQL")
    if repair.fields:
        told = ", ".join(f"{name} {value}" for name, value in sorted(repair.fields.items()))
        yield Difference(what, f"no or another {', '.join(sorted(repair.fields))}", told)
    if repair.stock is not None:
        stock = "no stock" if repair.found_stock is None else f"stock {repair.found_stock:,}"
        held = f"{repair.terms.initial:,} units less {len(repair.held):,} held"
        yield Difference(what, stock, f"stock {repair.stock:,}: {held}")
    for count, found, cure in (
        (len(repair.receipts), "receipts are missing", "written"),
        (len(repair.stale), "receipts name no order that holds a unit", "taken out"),
        (len(repair.members), "users are missing from the set", "put in"),
        (len(repair.strangers), "users of the set hold no order", "taken out"),
        (len(repair.requeued), "orders are no rows and have no entry", "written to the stream"),
    ):
        if count:
            yield Difference(what, f"{count:,} {found}", cure)
    if repair.unlisted:
        yield Difference(what, "not among the loaded sales", "put there")


def _of_broken(sale: SaleRepair) -> Iterator[Difference]:
    what = f"sale {sale.terms.voucher_id}"
    if sale.doubled:
        told = f"{sale.doubled:,} live rows are of users who have another one"
        yield Difference(what, told, "left as they are: see verify, and doctor for the unique key")
    if sale.oversold:
        yield Difference(what, f"{sale.oversold:,} units are sold that there are not", "see verify")
