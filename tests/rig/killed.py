"""A process that is killed between two steps: at its n-th step in a store, before or after it.

A step is a commit of MySQL's, a command or a pipeline of Redis', an exchange over a channel.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

from redis import Redis
from redis.client import Pipeline
from sqlalchemy import Connection, Engine

from flashsale.storage.channel import Channel


class Killed(BaseException):
    """Nothing of the process goes on."""


@dataclass
class Kill:
    """When: at which step, counted from 1, and on which side of it."""

    step: int
    after: bool
    taken: int = 0

    def pass_by(self, is_after: bool) -> None:
        """One side of a step."""
        self.taken += not is_after
        if self.taken == self.step and self.after is is_after:
            self.step = 0  # dead: what is torn down on the way out is not killed again
            raise Killed

    def around(self, run: Callable[..., Any]) -> Callable[..., Any]:
        """`run`, as a step."""

        def stepped(*args: Any, **kwargs: Any) -> Any:
            self.pass_by(False)
            result = run(*args, **kwargs)
            self.pass_by(True)
            return result

        return stepped

    def around_async(self, run: Callable[..., Any]) -> Callable[..., Any]:
        """The same for a coroutine."""

        async def stepped(*args: Any, **kwargs: Any) -> Any:
            self.pass_by(False)
            result = await run(*args, **kwargs)
            self.pass_by(True)
            return result

        return stepped


@contextmanager
def killed(
    kill: Kill | None, ledger: Redis, pool: Engine, channel: Channel | None = None
) -> Iterator[None]:
    """Whatever works on these stores inside the block is killed as `kill` says, or lives to its
    end; either way the block ends without an error of ours."""
    if kill is None:
        yield
        return
    begin = pool.begin

    @contextmanager
    def begun() -> Iterator[Connection]:
        with begin() as connection:
            yield connection
            kill.pass_by(False)
        kill.pass_by(True)

    with ExitStack() as patches:
        patches.enter_context(patch.object(pool, "begin", begun))
        command = kill.around(ledger.execute_command)
        patches.enter_context(patch.object(ledger, "execute_command", command))
        execute, of_ours = Pipeline.execute, ledger.connection_pool

        def pipelined(self: Pipeline, *args: Any, **kwargs: Any) -> Any:
            run = kill.around(execute) if self.connection_pool is of_ours else execute
            return run(self, *args, **kwargs)

        patches.enter_context(patch.object(Pipeline, "execute", pipelined))
        if channel is not None:
            for name in ("run", "ask_all"):
                run = kill.around_async(getattr(channel, name))
                patches.enter_context(patch.object(channel, name, run))
        with suppress(Killed):
            yield


def each_kill(most: int = 60) -> Iterator[Kill]:
    """A kill on either side of the first step, the second, … until one is asked for that was never
    reached: then the process has been killed everywhere."""
    for step in range(1, most):
        for after in (False, True):
            kill = Kill(step, after)
            yield kill
            if kill.step:
                return
    raise AssertionError(f"more than {most} steps")
