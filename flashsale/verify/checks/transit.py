"""The way from acceptance to row: nothing left on it, nothing fallen off it."""

from collections.abc import Iterator

from flashsale import keys
from flashsale.model import Verdict
from flashsale.verify.finding import EXAMPLES_MAX, Finding, Offence, doubt, violation
from flashsale.verify.queue import Entry
from flashsale.verify.snapshot import Snapshot


def queue_empty(snapshot: Snapshot) -> list[Finding]:
    """No order of the run is undelivered, pending, trimmed before delivery, or a dead letter.

    Cannot judge a system that keeps no stream of orders.
    """
    queue = snapshot.queue
    findings = [
        *_named("still queued", queue.backlog.total, queue.stuck),
        *_named("dead letters", queue.dead_total, queue.dead),
        *violation("lost from the queue", _losses(snapshot)),
    ]
    if not queue.exists and snapshot.accepted and not findings:
        findings += doubt("no queue to look at", [Offence(f"there is no {keys.STREAM_ORDERS}")])
    return findings


def _named(rule: str, total: int, entries: tuple[Entry, ...]) -> list[Finding]:
    if not total:
        return []
    named = tuple(_offence(entry) for entry in entries[:EXAMPLES_MAX])
    return [Finding(Verdict.FAIL, rule, total, named)]


def _offence(entry: Entry) -> Offence:
    named = [f"order {entry.order}"] if entry.order else []
    named += [f"user {entry.user}"] if entry.user else []
    named += [f"voucher {entry.voucher}"] if entry.voucher else []
    text = f"{', '.join([*named, f'entry {entry.entry}'])}: {entry.note}"
    return Offence(text, entry.voucher, entry.user, entry.order)


def _losses(snapshot: Snapshot) -> Iterator[Offence]:
    queue, before = snapshot.queue, snapshot.before
    trimmed = queue.trimmed - (before.trimmed if before else 0)
    if trimmed > 0:
        yield Offence(f"{trimmed:,} entries were removed before any worker was given them")
    existed = before is not None and before.stream_exists
    written = any(sale.ledger.receipts for sale in snapshot.sales)
    if not queue.exists and (existed or (written and snapshot.accepted)):
        yield Offence(f"{keys.STREAM_ORDERS} is gone, and with it whatever was unread")
