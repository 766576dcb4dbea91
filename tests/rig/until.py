"""Waiting for what another process does: polled, with a deadline, never a sleep that hopes."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

DEADLINE_S = 10.0
_POLL_S = 0.002


def until(holds: Callable[[], Any], within_s: float = DEADLINE_S) -> Any:
    """What `holds` answers, once it is true. Fails after the deadline."""
    give_up = time.monotonic() + within_s
    while not (answer := holds()):
        assert time.monotonic() < give_up, "it never came to pass"
        time.sleep(_POLL_S)
    return answer


async def eventually(
    holds: Callable[[], Any] | Callable[[], Awaitable[Any]], within_s: float = DEADLINE_S
) -> Any:
    """As `until`, while the loop goes on; `holds` may be a coroutine function."""
    give_up = time.monotonic() + within_s
    while True:
        answer = holds()
        if asyncio.iscoroutine(answer):
            answer = await answer
        if answer:
            return answer
        assert time.monotonic() < give_up, "it never came to pass"
        await asyncio.sleep(_POLL_S)
