"""The course of a plan: what becomes due when an attempt has its answer. Pure."""

from array import array
from collections.abc import Iterator

from flashsale.storm.plan import LAST, Plan


class Course:
    """Knows for each attempt those that wait for it: the first of them, and who stands beside."""

    def __init__(self, plan: Plan) -> None:
        self._first = array("q", [LAST]) * len(plan)
        self._beside = array("q", [LAST]) * len(plan)
        for i in reversed(range(len(plan.first_attempts), len(plan))):
            self._beside[i] = self._first[plan.after[i]]
            self._first[plan.after[i]] = i

    def __repr__(self) -> str:
        return f"<Course attempts={len(self._first)}>"

    def waiting_for(self, attempt: int) -> Iterator[int]:
        """The attempts that are due some time after the answer to this one, ascending."""
        i = self._first[attempt]
        while i != LAST:
            yield i
            i = self._beside[i]
