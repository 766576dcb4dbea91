"""The rules of a sale. Each check is a pure function of the snapshot that lists its findings.

No finding is a pass, a violation is a fail, a doubt without a violation is unknown.
"""

from collections.abc import Callable
from dataclasses import dataclass

from flashsale.verify.checks.answers import duplicate_truthful, sold_out_truthful
from flashsale.verify.checks.orders import (
    accepted_persisted,
    no_phantom,
    one_per_user,
    queue_empty,
    unique_ids,
    window,
)
from flashsale.verify.checks.stock import (
    mysql_conservation,
    no_oversell,
    no_undersell,
    redis_conservation,
)
from flashsale.verify.finding import Finding
from flashsale.verify.snapshot import Snapshot


@dataclass(frozen=True, slots=True)
class Check:
    """One rule, in a line, and the function that judges it."""

    name: str
    rule: str
    judge: Callable[[Snapshot], list[Finding]]


CHECKS = (
    Check("no_oversell", "no more orders than units", no_oversell),
    Check("one_per_user", "one live order a user and voucher", one_per_user),
    Check("unique_ids", "an order id belongs to one order", unique_ids),
    Check("accepted_persisted", "every accepted order is a row", accepted_persisted),
    Check("no_phantom", "every new order was asked for", no_phantom),
    Check("mysql_conservation", "MySQL: initial − stock = live orders", mysql_conservation),
    Check("redis_conservation", "Redis: stock + set = initial; set = orders", redis_conservation),
    Check("queue_empty", "nothing pending, trimmed unread or dead", queue_empty),
    Check("duplicate_truthful", "who was told “duplicate” has that order", duplicate_truthful),
    Check("sold_out_truthful", "no sale after a “sold out” arrived", sold_out_truthful),
    Check("window", "no order outside the sale's window", window),
    Check("no_undersell", "nobody was told “sold out” with units left", no_undersell),
)
