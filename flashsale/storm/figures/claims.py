"""The claims of a run, voucher by voucher, in the order in which they were sent."""

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import orjson

from flashsale.model import Ending, Outcome
from flashsale.storm.record.ledger import NEVER, Ledger

NO_VOUCHER = 0
"""In `Asked.vouchers`: the attempt was no claim."""


@dataclass(frozen=True)
class Asked:
    """Who asked for which voucher, attempt by attempt; `units` is what each voucher had before
    the storm, as far as that is known."""

    users: Sequence[int]
    vouchers: Sequence[int]
    units: Mapping[int, int] = field(default_factory=dict)


class Claim(NamedTuple):
    """One claim that was sent: instants in µs after the barrier, and how it ended.

    `holds` is True where an order came of it: told at once, or found out afterwards.
    """

    user: int
    sent_us: int
    done_us: int
    ending: Ending
    holds: bool

    @property
    def is_open(self) -> bool:
        """True where an order may have come of it, and nobody knows."""
        return self.ending.is_indeterminate and not self.holds


@dataclass
class Claims:
    """All claims on one voucher, as sent. `units` is None where nobody knows them."""

    voucher: int
    units: int | None
    claims: list[Claim] = field(default_factory=list)


def claims_by_voucher(ledger: Ledger, asked: Asked) -> list[Claims]:
    """What was sent and asked for a voucher, by ascending voucher. Pure.

    A claim in doubt, of which the status route said that nothing came of it, is as good as shed.
    """
    found: dict[int, Claims] = {
        voucher: Claims(voucher, asked.units.get(voucher))
        for voucher in sorted({*asked.vouchers, *asked.units} - {NO_VOUCHER})
    }
    if not found:
        return []
    sent = ledger.sent_ns
    for i in sorted((i for i, _ in ledger.settled() if sent[i] != NEVER), key=sent.__getitem__):
        voucher = asked.vouchers[i]
        if voucher != NO_VOUCHER:
            found[voucher].claims.append(_claim(ledger, i, asked.users[i]))
    return list(found.values())


def read_asked(path: Path) -> Asked:
    """What a file of attempts says was asked for. Raises OSError, and ValueError as read_ledger."""
    with path.open("rb") as lines:
        header = orjson.loads(next(lines, b"null"))
        if not isinstance(header, dict) or header.get("kind") != "header":
            raise ValueError(f"{path} does not begin with a header")
        users, vouchers = (array("q", [0]) * header["planned"] for _ in range(2))
        for line in lines:
            if not line.startswith(b'{"kind":"plan"'):
                break  # the plan comes whole, and first
            plan = orjson.loads(line)
            if "voucher" in plan:
                users[plan["i"]], vouchers[plan["i"]] = plan["user"], plan["voucher"]
    units = {int(voucher): left for voucher, left in (header.get("units") or {}).items()}
    return Asked(users, vouchers, units)


def _claim(ledger: Ledger, i: int, user: int) -> Claim:
    answer = ledger.answers[i]
    assert answer is not None
    ending, origin = answer.outcome, ledger.origin_ns
    sent_us, done_us = (ledger.sent_ns[i] - origin) // 1000, (ledger.done_ns[i] - origin) // 1000
    resolved = ledger.resolved.get(i) if ending.is_indeterminate else None
    if resolved is None:
        return Claim(user, sent_us, done_us, ending, ending is Outcome.SOLD)
    holds = resolved == Outcome.SOLD
    return Claim(user, sent_us, done_us, ending if holds else Outcome.SHED, holds)
