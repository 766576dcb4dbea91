"""The rules of a sale. Each check is a pure function of the snapshot that lists its findings.

No finding is a pass, a violation is a fail, a doubt without a violation is unknown.
"""

from collections.abc import Callable
from dataclasses import dataclass

from flashsale.verify.checks.answers import (
    duplicate_truthful,
    duplicates,
    refusals,
    sold_out_truthful,
)
from flashsale.verify.checks.orders import (
    accepted_persisted,
    new_orders,
    no_phantom,
    one_per_user,
    promises,
    second_claims,
    unique_ids,
)
from flashsale.verify.checks.stock import (
    buyers_beyond,
    mysql_conservation,
    no_oversell,
    no_undersell,
    redis_conservation,
    units,
)
from flashsale.verify.checks.stream import outside_the_window, queue_empty, queued, window
from flashsale.verify.finding import Finding, Met
from flashsale.verify.snapshot import Snapshot


@dataclass(frozen=True, slots=True)
class Check:
    """One rule, in a line, the function that judges it, and what it met of what it guards."""

    name: str
    rule: str
    judge: Callable[[Snapshot], list[Finding]]
    meets: Callable[[Snapshot], Met]


CHECKS = (
    Check("no_oversell", "no more orders than units", no_oversell, buyers_beyond),
    Check("one_per_user", "one live order a user and voucher", one_per_user, second_claims),
    Check("unique_ids", "an order id belongs to one order", unique_ids, new_orders),
    Check("accepted_persisted", "every accepted order is a row", accepted_persisted, promises),
    Check("no_phantom", "every new order was asked for", no_phantom, new_orders),
    Check(
        "mysql_conservation",
        "MySQL: initial − stock = live orders",
        mysql_conservation,
        units,
    ),
    Check(
        "redis_conservation",
        "Redis: stock + set = initial; set = orders",
        redis_conservation,
        units,
    ),
    Check("queue_empty", "nothing pending, lost unread or dead", queue_empty, queued),
    Check(
        "duplicate_truthful",
        "who was told “duplicate” has that order",
        duplicate_truthful,
        duplicates,
    ),
    Check(
        "sold_out_truthful",
        "no sale after a “sold out” arrived",
        sold_out_truthful,
        refusals,
    ),
    Check("window", "no order outside the sale's window", window, outside_the_window),
    Check(
        "no_undersell",
        "nobody was told “sold out” with units left",
        no_undersell,
        refusals,
    ),
)
