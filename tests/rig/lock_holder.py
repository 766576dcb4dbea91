"""One holder of a lock: `python -m rig.lock_holder CACHE_URL LEDGER_URL LEASE_MS RENEW_MS`.

Says its fencing number once it holds the lock "job", waits for a line, lets go, and says
"released" or "lost".
"""

import asyncio
import sys

from flashsale.locks.task import LockLost, TaskLocks
from flashsale.settings import LockSettings


def _say(word: object) -> None:
    sys.stdout.write(f"{word}\n")
    sys.stdout.flush()


async def main(cache_url: str, ledger_url: str, lease_ms: int, renew_ms: int) -> None:
    """Hold it until told to let go."""
    locks = TaskLocks(
        cache_url, ledger_url, LockSettings.load(lease_ms=lease_ms, renew_ms=renew_ms)
    )
    try:
        async with locks.lock("job") as grant:
            _say(grant.fence)
            await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
    except LockLost:
        _say("lost")
    else:
        _say("released")
    await locks.aclose()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])))
