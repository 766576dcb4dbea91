"""The barrier: the one instant before which nothing is sent, and the wait for it."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from time import monotonic_ns

from flashsale.errors import UnreachableError
from flashsale.storm.attack.alarm import Alarm

Hold = Callable[[int], Awaitable[None]]
"""Keeps every lane standing for so many ns."""

Barrier = Callable[[Hold], Awaitable[int | None]]
"""Called when every lane stands; has them held, and answers with the instant at which the barrier
opens, on the monotonic clock. None: as soon as may be."""

LEAD_NS = 200_000_000
"""From the last connection to the barrier: who has to be told of it is ready by then."""

SETTLE_NS = 500_000_000
"""Nothing is done any more, this long before a barrier whose instant is known beforehand."""


async def at_once(_hold: Hold) -> None:
    """Open as soon as every lane stands."""


def at_unix_us(instant_us: int) -> Barrier:
    """Open at this instant of the machine's wall clock, with every lane standing until then.

    The two clocks are compared at the last moment, since the wall clock may be set meanwhile.
    Raises UnreachableError where the lanes do not stand in time: others begin without us.
    """

    async def instant(hold: Hold) -> int:
        if (left_ns := until_unix_us(instant_us)) < LEAD_NS:
            raise UnreachableError(
                f"all connections stood only {(LEAD_NS - left_ns) / 1e6:,.0f} ms after the last "
                "moment for --start-at; give it more time, or look at timeouts.barrier_ms"
            )
        while (left_ns := until_unix_us(instant_us)) > SETTLE_NS:
            await hold(min(left_ns - SETTLE_NS, 1_000_000_000))
        return monotonic_ns() + left_ns

    return instant


def until_unix_us(instant_us: int) -> int:
    """How many ns from now the wall clock will show `instant_us`; negative when it is past."""
    return instant_us * 1000 - time.time_ns()


def unix_us_at(instant_ns: int) -> int:
    """What the wall clock shows, in µs, when the monotonic clock shows `instant_ns`."""
    return (time.time_ns() + instant_ns - monotonic_ns()) // 1000


async def wait_until(instant_ns: int) -> None:
    """Return at `instant_ns` on the monotonic clock, to within what the kernel can."""
    if instant_ns <= monotonic_ns():
        return
    rung = asyncio.Event()
    alarm = Alarm(asyncio.get_running_loop(), rung.set)
    try:
        alarm.set(instant_ns)
        await rung.wait()
    finally:
        alarm.close()
