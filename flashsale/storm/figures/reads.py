"""What the answers to reads say of the cache, by their `x-cache` headers."""

from collections.abc import Mapping
from typing import Self

from flashsale.model import Ending, Reading
from flashsale.storm.figures.part import Part

_FROM_CACHE = (Reading.HIT, Reading.STALE, Reading.NULL)
_PAST_CACHE = (Reading.LOAD, Reading.WAIT)


class ReadFigures(Part):
    """The reads of a run, each under one of the numbers from `hits` on."""

    hit_ratio: float | None
    """Of the answers that asked the cache, the share that it gave at once: fresh, stale or known
    to be absent. What the Bloom filter turned away never asked it. None where none did."""

    hits: int
    stale: int
    """Logically expired, answered at once and rebuilt behind the answer."""

    nulls: int
    """Remembered as absent."""

    loads: int
    """Answered from the database by the very request."""

    waits: int
    """Answered by a load that another request had begun."""

    rejected: int
    """Turned away by the Bloom filter: the id does not exist."""

    unmarked: int
    """Answered without a word in `x-cache`."""

    @classmethod
    def of(cls, outcomes: Mapping[Ending, int]) -> Self | None:
        """The figures of a run with these endings, None where it had no answer to a read. Pure."""
        counts = {reading: outcomes.get(reading, 0) for reading in Reading}
        if not any(counts.values()):
            return None
        given = sum(counts[reading] for reading in _FROM_CACHE)
        asked = given + sum(counts[reading] for reading in _PAST_CACHE)
        return cls(
            hit_ratio=round(given / asked, 6) if asked else None,
            hits=counts[Reading.HIT],
            stale=counts[Reading.STALE],
            nulls=counts[Reading.NULL],
            loads=counts[Reading.LOAD],
            waits=counts[Reading.WAIT],
            rejected=counts[Reading.BLOOM],
            unmarked=counts[Reading.ANSWERED],
        )
