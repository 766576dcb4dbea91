"""Budgets: how often a phone or an address may do something in a span of time."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address, ip_network

from flashsale import keys
from flashsale.errors import Indeterminate, Unavailable
from flashsale.lua.scripts import script
from flashsale.storage.channel import Call, Channel

_TAKE = script("budget_take")
_IPV6_PREFIX = 64  # what one subscriber is given; single addresses inside it cost nothing


@dataclass(frozen=True, slots=True)
class Wait:
    """A budget is spent: the answer instead of what was asked for."""

    seconds: int


@dataclass(frozen=True, slots=True)
class Budget:
    """At most `limit` times `what` by `whose`, in one window."""

    what: str
    whose: str
    limit: int


class Budgets:
    """Takes from several budgets at once, or from none of them."""

    def __init__(self, ledger: Channel, *, window_s: int) -> None:
        self._ledger = ledger
        self._window_s = window_s

    def __repr__(self) -> str:
        return f"<Budgets window={self._window_s} s>"

    async def take(self, budgets: Sequence[Budget]) -> Wait | None:
        """One from each of `budgets`; a Wait where one is spent. Raises Unavailable, Indeterminate.

        The window begins with the first take, so at its edge twice the limit can pass.
        """
        names = [keys.login_budget(budget.what, budget.whose) for budget in budgets]
        limits = [budget.limit for budget in budgets]
        reply = await self._run(names, (self._window_s * 1000, *limits))
        return Wait(math.ceil(reply / 1000)) if reply else None

    async def _run(self, names: Sequence[str], args: Sequence[int]) -> int:
        reply = (await self._ledger.run([Call(_TAKE, names, args)]))[0]
        if isinstance(reply, (Unavailable, Indeterminate)):
            raise reply
        return int(reply)


def subscriber(address: str) -> str:
    """Whose budget `address` draws on: an IPv6 address stands for its whole /64. Pure."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return address
    if isinstance(parsed, IPv6Address):
        return str(ip_network((parsed, _IPV6_PREFIX), strict=False).network_address)
    return address
