"""Faults of links, and this side of the relay that makes them."""

import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Self

import orjson

from flashsale.errors import UnreachableError
from flashsale.faults.fault import Fault, Site
from flashsale.faults.relay import Trouble, message
from flashsale.scenario.fault import Fault as Planned
from flashsale.scenario.fault import role_of
from flashsale.stack.process import start_tethered

_NUMBERS = count(1)
_END_S = 5.0


def links_of(faults: Sequence[Planned], replicas: int, workers: int) -> list[str]:
    """The links that these faults are on, each as `r1->ledger`, for a stack of so many processes.
    Pure."""
    every = {
        "replica": [f"r{n + 1}" for n in range(replicas)],
        "worker": [f"c{n + 1}" for n in range(workers)],
    }
    found: dict[str, None] = {}
    for fault in faults:
        place = fault.place
        if place.server is not None:
            for client in every.get(place.client, [place.client]):
                for server in every.get(place.server, [place.server]):
                    found[f"{client}->{server}"] = None
    return list(found)


class Relay:
    """The process that relays the links of one stack: `with Relay(folder, links) as relay`.

    `ports` says where each link begins. Start it from the main thread, before the stack.
    """

    def __init__(self, state_dir: Path, links: Sequence[str]) -> None:
        self._arguments = [str(state_dir), *links]
        self._lock = threading.Lock()
        self.ports: Mapping[str, int] = {}

    def __repr__(self) -> str:
        return f"<Relay {dict(self.ports)}>"

    def __enter__(self) -> Self:
        self._process = start_tethered(
            [sys.executable, "-P", "-m", "flashsale.faults.relay", *self._arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        self.ports = self._heard()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._process as process:
            assert process.stdin
            try:
                process.stdin.close()
                process.wait(_END_S)
            except (OSError, subprocess.TimeoutExpired):
                process.kill()

    def disturb(self, link: str, number: int, planned: Planned | None) -> None:
        """Begin with a fault on every link that `link` stands for, or end the one of this number.

        Raises UnreachableError where the relay is gone.
        """
        trouble = None if planned is None else _trouble(planned)
        assert self._process.stdin
        with self._lock:
            for name in self.ports:
                if _is_one_of(name, link):
                    try:
                        self._process.stdin.write(message(name, number, trouble))
                        self._process.stdin.flush()
                    except OSError as gone:
                        raise UnreachableError(f"the relay of {name} is gone") from gone
                    self._heard()

    def _heard(self) -> dict[str, int]:
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            raise UnreachableError("the relay of the links with faults has ended")
        heard: dict[str, int] = orjson.loads(line)
        return heard


def _trouble(planned: Planned) -> Trouble:
    return Trouble(
        planned.what,
        latency_ms=planned.latency_ms,
        jitter_ms=planned.jitter_ms,
        kb_per_s=planned.kb_per_s,
        slice_bytes=planned.slice_bytes,
    )


def _is_one_of(link: str, asked: str) -> bool:
    """Whether `r1->ledger` is meant by `r1->ledger` or `replica->ledger`."""
    ends, wanted = link.split("->"), asked.split("->")
    return all(want in (end, role_of(end)) for end, want in zip(ends, wanted, strict=True))


class OnLink(Fault):
    """What the relay does to a link for a while, or in an instant."""

    _number = 0

    def do(self, site: Site) -> None:
        assert site.disturb is not None, "a link with a fault has a relay"
        self._number = next(_NUMBERS)
        site.disturb(str(self.planned.place), self._number, self.planned)

    def heal(self, site: Site) -> None:
        assert site.disturb is not None
        if self._number:
            site.disturb(str(self.planned.place), self._number, None)
