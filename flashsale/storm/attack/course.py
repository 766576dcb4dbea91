"""The course of a plan: what becomes due when an attempt has its answer. Pure."""

from array import array
from collections.abc import Callable, Iterator
from typing import NamedTuple

from flashsale.run.plan_columns import ALWAYS
from flashsale.storm.plan.plan import LAST, Plan


class Turn(NamedTuple):
    """What follows from an answer: the attempts that are due some time after it, and those that
    are not made, since there was no need."""

    due: list[int]
    spared: list[int]


class Course:
    """Knows for each attempt those that wait for it: the first of them, and who stands beside."""

    def __init__(self, plan: Plan) -> None:
        self._given = plan.given
        self._first = array("q", [LAST]) * len(plan)
        self._beside = array("q", [LAST]) * len(plan)
        for i in reversed(range(len(plan.first_attempts), len(plan))):
            self._beside[i] = self._first[plan.after[i]]
            self._first[plan.after[i]] = i

    def __repr__(self) -> str:
        return f"<Course attempts={len(self._first)}>"

    def after(self, attempt: int, failed: Callable[[int], bool]) -> Turn:
        """What follows from the end of `attempt`; `failed` says of a claim whether its user wants
        to try again. Who waits for an attempt that is spared waits for this one instead."""
        turn, ended = Turn([], []), [attempt]
        while ended:
            for i in self.waiting_for(ended.pop()):
                if self._given and self._given[i] != ALWAYS and not failed(self._given[i]):
                    turn.spared.append(i)
                    ended.append(i)
                else:
                    turn.due.append(i)
        return turn

    def waiting_for(self, attempt: int) -> Iterator[int]:
        """The attempts that are due some time after the answer to this one, ascending."""
        i = self._first[attempt]
        while i != LAST:
            yield i
            i = self._beside[i]
