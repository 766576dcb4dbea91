"""Controls: defects that are planted on purpose, each with the faults that have to find it.

A chaos that cannot fail proves nothing. What is planted in the sale's own processes is a
`sitecustomize`, which Python runs in each process that finds it: nothing in the product knows of
it. It ends with the stack that it was planted in.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from flashsale.errors import UsageError
from flashsale.scenario.fault import PlannedFault
from flashsale.scenario.table import suggestion
from flashsale.stack.state import StackState
from flashsale.storage.roles import sync_client
from flashsale.store_urls import mysql_arguments, open_mysql, read_mysql_url

_WITHOUT_RECEIPTS = """\
import sys
if "replica" in sys.orig_argv:
    from hashlib import sha1
    from flashsale.lua import scripts
    read = scripts.script.__wrapped__
    def script(name):
        found = read(name)
        if name != "seckill":
            return found
        text = found.text
        for one, other in (
            ("held and 2 or refusal()", "refusal()"),
            ("not code and holds_unseen(user_id)", "false"),
        ):
            assert one in text, "the control does not know this script any more"
            text = text.replace(one, other)
        return scripts.Script(name, text, sha1(text.encode()).hexdigest())
    scripts.script = script
"""

_ACKNOWLEDGES_FIRST = """\
import sys
if "worker" in sys.orig_argv:
    from flashsale.orders.watch import BooksWatch
    from flashsale.orders.worker import Worker
    BooksWatch.requeue_missing = lambda self: 0
    persist = Worker._under_lock
    def under_lock(self, orders, fence):
        self._stream.acknowledge([order.entry_id for order in orders])
        return persist(self, orders, fence)
    Worker._under_lock = under_lock
"""


def _everysec(state: StackState) -> None:
    with sync_client(state.ledger_url) as ledger:
        ledger.config_set("appendfsync", "everysec")


def _no_unique_key(state: StackState) -> None:
    url = read_mysql_url(state.mysql_url)
    connection = open_mysql(**mysql_arguments(url, read_timeout_s=30))
    with closing(connection), connection.cursor() as cursor:
        cursor.execute("ALTER TABLE tb_voucher_order DROP INDEX uk_live_order")


def _nothing(state: StackState) -> None:
    """What is planted is in the processes."""


@dataclass(frozen=True)
class Control:
    """A defect: how it is planted, the faults that show it, and a rule that has to be breached:
    one of `must`."""

    meaning: str
    faults: Sequence[PlannedFault]
    must: Sequence[str]
    planted: Callable[[StackState], None] = _nothing
    customized: str = ""

    def environment(self, folder: Path) -> Mapping[str, str]:
        """What the stack's processes need to be told; `folder` is theirs for as long as it runs."""
        if not self.customized:
            return {}
        (folder / "sitecustomize.py").write_text(self.customized, encoding="utf-8")
        return {"PYTHONPATH": str(folder)}


def _fault(
    at: str, what: str, whom: str, lasting: str | None = None, **options: int
) -> PlannedFault:
    return PlannedFault.made(at=at, what=what, whom=whom, **{"for": lasting}, **options)


CONTROLS: Mapping[str, Control] = {
    "everysec": Control(
        "the ledger fsyncs every second on a disk that takes its time, and loses its power while "
        "the database is locked",
        (
            # One fsync a second begins, so one begins within 1.4 s and is withheld until long after
            # the cut, however late that comes; the next process' fsyncs are as ever.
            _fault("1200ms", "lock_rows", "mysql", "3s"),
            _fault("1500ms", "slow_fsync", "ledger", "1400ms", latency_ms=60_000),
            _fault("3200ms", "power_cut", "ledger"),
        ),
        ("accepted_persisted",),
        planted=_everysec,
    ),
    "no_unique_key": Control(
        "the database has no unique key, and the script does not look at receipts",
        (_fault("2s", "kill", "worker"),),
        ("one_per_user",),
        planted=_no_unique_key,
        customized=_WITHOUT_RECEIPTS,
    ),
    "no_receipt_check": Control(
        "the script does not look at receipts, and replies are lost",
        (_fault("2s", "cut_reply", "replica->ledger", "500ms"),),
        ("one_per_user", "redis_conservation", "accepted_persisted"),
        customized=_WITHOUT_RECEIPTS,
    ),
    "ack_first": Control(
        "the worker acknowledges before it writes, and is killed while the database is locked; "
        "nobody writes what is missing to the stream again",
        (_fault("2s", "lock_rows", "mysql", "2s"), _fault("3s", "kill", "worker")),
        ("accepted_persisted",),
        customized=_ACKNOWLEDGES_FIRST,
    ),
}


def controls_named(names: Sequence[str]) -> Mapping[str, Control]:
    """The controls of these names; `all` is every one. Raises UsageError."""
    if "all" in names:
        return CONTROLS
    for name in names:
        if name not in CONTROLS:
            raise UsageError(
                f"--control: found {name!r}{suggestion(name, list(CONTROLS))}; "
                f"expected one of {', '.join(CONTROLS)} or all"
            )
    return {name: CONTROLS[name] for name in names}
