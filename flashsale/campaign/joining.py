"""A shard's side of a rendezvous: it comes, takes scenario, plan and sessions, makes ready, reports
and brings its record.

One thread asks the rendezvous, a few times a second, over one connection; the storm never waits for
it. Whoever does not answer for `silence_s` is gone: before the instant there is no storm then, and
after it the storm ends, with its record in its own folder.
"""

import http.client
import os
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self, TypeVar
from urllib.parse import quote, urlsplit

import orjson
from pydantic import BaseModel

from flashsale.asking import read_json
from flashsale.campaign.campaign import StormRun, Teller
from flashsale.campaign.judging import ensure_virtual_users
from flashsale.campaign.storming import StormRequest, run_storm
from flashsale.errors import FlashsaleError, UnreachableError, UsageError, one_line
from flashsale.run.attempts import ClockReading
from flashsale.run.attempts_file import read_plan
from flashsale.run.folder import ATTEMPTS_FILE, RunFolder, read_file, write_file
from flashsale.scenario.answer import excerpt
from flashsale.scenario.scenario import Scenario, scenario_of
from flashsale.scenario.target import Tls
from flashsale.scenario.tokens import read_tokens, read_users
from flashsale.settings import RendezvousSettings
from flashsale.storm.attack.attack import Progress
from flashsale.storm.attack.instants import Hold, at_unix_us
from flashsale.storm.crew.rendezvous import USERS_FILE
from flashsale.storm.crew.shard import Shard
from flashsale.storm.plan.plan import Plan
from flashsale.storm.plan.planning import plan_of

CHUNK_BYTES = 1_048_576
"""What leaves or comes in one call."""

_WAITING_S, _FIRING_S = 0.1, 0.5
"""How often a shard reports before the instant is known, and after."""

_QUESTIONS, _QUESTIONS_S = 16, 0.5
"""Round trips of which the best one counts, and how long they may take together."""

_HOLD_NS = 50_000_000
_CALL_S = 5.0
_AGAIN_S = 0.2
_ANSWER_BYTES_MAX = 2 * CHUNK_BYTES
_OK, _REFUSED = 200, 409


@dataclass(frozen=True)
class Task:
    """What the rendezvous has for a shard: files in a folder of its own, and a few facts."""

    name: str
    plan_hash: str
    base_url: str
    units: dict[int, int]
    scenario: Scenario
    plan: Plan
    users: Path


_Kind = TypeVar("_Kind", bound=BaseModel)


def _whole(response: http.client.HTTPResponse) -> bytes:
    """The body, which a rendezvous sends at once. Raises HTTPException where it has no end."""
    until_s, body = time.monotonic() + _CALL_S, bytearray()
    while piece := response.read1(_ANSWER_BYTES_MAX):
        body += piece
        if len(body) > _ANSWER_BYTES_MAX or time.monotonic() > until_s:
            raise http.client.HTTPException("an answer without an end")
    response.close()  # else the connection takes no other request
    return bytes(body)


class RendezvousClient:
    """The way to a rendezvous. Safe to use from several threads, each with a connection."""

    def __init__(self, url: str, settings: RendezvousSettings) -> None:
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port or 80
        except ValueError:  # no port that there is, or half an address
            host, port = None, 0
        if not host or parts.scheme != "http" or parts.path.strip("/"):
            raise UsageError(f"--rendezvous: found {url!r}, expected such as http://host:9200")
        self._place = host, port
        self._url, self._silence_s = url, settings.silence_s
        self._headers = {"authorization": settings.secret.get_secret_value()}
        self._connections: dict[int, http.client.HTTPConnection] = {}  # by thread

    def __repr__(self) -> str:
        return f"<RendezvousClient {self._url}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Close every connection; no thread asks any more."""
        for connection in self._connections.values():
            connection.close()

    def call(
        self,
        path: str,
        body: bytes | None = None,
        *,
        patience_s: float | None = None,
    ) -> bytes:
        """The answer to a GET, or to a POST of `body`; asked again for a while where none comes.

        Every call may come twice and do no harm. Raises UnreachableError, and UsageError with the
        reason where the rendezvous refuses.
        """
        until_s = time.monotonic() + (self._silence_s if patience_s is None else patience_s)
        while True:
            try:
                return self._once(path, body)
            except (OSError, http.client.HTTPException) as error:
                self._hang_up()
                if time.monotonic() >= until_s:
                    setting = "SILENCE_S" if patience_s is None else "GATHER_TIMEOUT_S"
                    raise UnreachableError(
                        f"no rendezvous answers at {self._url} ({error or type(error).__name__}); "
                        "start it, such as `flashsale rendezvous stampede --shards 4`; "
                        f"FLASHSALE_RENDEZVOUS_{setting} is how long it is asked again"
                    ) from error
                time.sleep(_AGAIN_S)

    def _once(self, path: str, body: bytes | None) -> bytes:
        connection = self._connections.get(threading.get_ident())
        if connection is None:
            connection = http.client.HTTPConnection(*self._place, timeout=_CALL_S)
            self._connections[threading.get_ident()] = connection
            connection.connect()
            connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.request("GET" if body is None else "POST", path, body, self._headers)
        response = connection.getresponse()
        answer = _whole(response)
        if response.status == _OK:
            return answer
        if response.status == http.client.SERVICE_UNAVAILABLE:
            raise http.client.HTTPException("it is busy")
        told = one_line(answer[:500].decode("utf-8", "replace"))
        with suppress(ValueError, KeyError, TypeError):
            told = one_line(str(read_json(answer)["errorMsg"])[:500])
        if response.status == http.client.UNAUTHORIZED:
            raise UsageError(
                f"the rendezvous at {self._url} does not know this secret; set "
                "FLASHSALE_RENDEZVOUS_SECRET as it is set there"
            )
        if response.status == _REFUSED:
            raise UsageError(f"the rendezvous refuses: {told}")
        raise UsageError(f"{self._url} answered {response.status} ({told}); is it a rendezvous?")

    def _hang_up(self) -> None:
        connection = self._connections.pop(threading.get_ident(), None)
        if connection is not None:
            connection.close()

    def post(self, path: str, told: dict[str, object], kind: type[_Kind], **how: Any) -> _Kind:
        """What is answered to JSON. Raises UsageError where no rendezvous answers so."""
        answer = self.call(path, orjson.dumps(told), **how)
        try:
            return kind.model_validate_json(answer)
        except ValueError as error:
            said = excerpt(answer)
            raise UsageError(f"{self._url} answered {said!r}; is it a rendezvous?") from error


class _Joined(BaseModel):
    """What a shard is told that may take part."""

    name: str
    plan_hash: str
    base_url: str
    units: dict[int, int]
    files: dict[str, int]


class _Reported(BaseModel):
    """What a report is answered with."""

    instant_us: int | None
    stop: str | None
    clock_us: int


class Presence:
    """A shard at its rendezvous, as the storm knows it, and the thread that reports."""

    def __init__(self, link: RendezvousClient, ticket: str, name: str, plan_hash: str) -> None:
        self.name, self.clock, self.interrupted = name, None, False
        self._link, self._ticket, self._plan_hash = link, ticket, plan_hash
        self._is_ready = self.fired = False
        self._instant_us: int | None = None
        self._stopping: str | None = None
        self._progress: Progress | None = None
        self._left = threading.Event()
        self._thread = threading.Thread(target=self._keep_reporting, name="rendezvous", daemon=True)

    clock: ClockReading | None

    def __repr__(self) -> str:
        return f"<Presence {self.name} ready={self._is_ready} stopping={self._stopping!r}>"

    def start(self) -> None:
        """Report for the first time, then again and again. Raises UsageError where the plan is not
        the one of the rendezvous."""
        self._report()
        self._thread.start()

    def end(self) -> None:
        """Report no more."""
        self._left.set()
        if self._thread.ident is not None:
            self._thread.join()

    async def instant(self, hold: Hold) -> int:
        """Be ready; the instant at which all begin, by this machine's monotonic clock."""
        self._is_ready = True
        while self._instant_us is None or self.clock is None:
            if self._stopping is not None:
                raise UnreachableError(f"the storm was given up: {self._stopping}")
            await hold(_HOLD_NS)
        barrier = at_unix_us(self._instant_us - self.clock.offset_us)
        instant_ns = await barrier(hold)
        assert instant_ns is not None
        self.fired = True
        return instant_ns

    def look(self, progress: Progress) -> bool:
        """Take how far the storm is; whether it is to stop."""
        self._progress = progress
        return self._stopping is not None

    def _keep_reporting(self) -> None:
        while not self._left.wait(_WAITING_S if self._instant_us is None else _FIRING_S):
            try:
                self._report()
            except Exception as error:  # noqa: BLE001 - a thread's outermost loop
                self._stopping = self._stopping or _told(error)
                return

    def _report(self) -> None:
        answer, _ = self._ask()
        if answer.stop is not None:
            self._stopping = answer.stop
        elif answer.instant_us is not None and self._instant_us is None:
            self.clock = self._compared()
            self._instant_us = answer.instant_us

    def _compared(self) -> ClockReading:
        """The two clocks, by the best of several round trips."""
        until_s, readings = time.monotonic() + _QUESTIONS_S, list[ClockReading]()
        while len(readings) < _QUESTIONS and (not readings or time.monotonic() < until_s):
            readings.append(self._ask()[1])
        return ClockReading.best(readings)

    def _ask(self) -> tuple[_Reported, ClockReading]:
        progress = self._progress
        told: dict[str, object] = {
            "ticket": self._ticket,
            "plan_hash": self._plan_hash,
            "ready": self._is_ready,
            "interrupted": self.interrupted,
        }
        if progress is not None:
            told["settled"], told["in_flight"] = progress.settled, progress.in_flight
            told["outcomes"] = {ending.value: n for ending, n in progress.outcomes.items()}
        asked_us, began_ns = time.time_ns() // 1000, time.monotonic_ns()
        answer = self._link.post("/report", told, _Reported)
        round_trip_us = (time.monotonic_ns() - began_ns) // 1000
        return answer, ClockReading.of(asked_us, answer.clock_us, round_trip_us)


@dataclass(frozen=True)
class ShardRequest:
    """What is this machine's own to say; without `base_url` it is the one of the rendezvous."""

    base_url: str = ""
    out: Path | None = None
    processes: int = 1
    csv: bool = False
    tls: Tls | None = None


def storm_as_shard(
    shard: Shard,
    url: str,
    given: ShardRequest,
    scenario: Scenario | None,
    teller: Teller,
) -> StormRun:
    """Storm as this shard of whatever the rendezvous at `url` is for.

    A `scenario` that was named here has to make the very plan of the rendezvous. Raises as
    `run_storm` does, and UsageError where the rendezvous refuses.
    """
    settings, ticket = RendezvousSettings.load(), secrets.token_hex(16)
    who = f"{socket.gethostname()}:{os.getpid()}"
    joined = {"ticket": ticket, "number": shard.number, "of": shard.of, "who": who}
    with (
        TemporaryDirectory(prefix="flashsale-shard-") as folder,
        RendezvousClient(url, settings) as link,
    ):
        with _leaving(link, ticket) as left:
            # As patient as the rendezvous is: either may be started first.
            patience_s = settings.gather_timeout_s
            teller.say(f"shard {shard}, asks for a rendezvous at {url}, {patience_s:g} s at most")
            told = link.post("/join", joined, _Joined, patience_s=patience_s)
            task = _fetched(link, told, Path(folder))
            ensure_virtual_users(given.processes, shard, task.scenario.load.virtual_users)
            plan_hash = task.plan_hash if scenario is None else _hash_of(scenario, task)
            left.append(Presence(link, ticket, task.name, plan_hash))
            left[0].start()
            teller.say(f"shard {shard} of {task.scenario.name}, waits for the others")
            request = StormRequest(
                scenario=task.scenario,
                base_url=given.base_url or task.base_url,
                tokens=task.users,
                out=given.out,
                plan=task.plan,
                processes=given.processes,
                shard=shard,
                rendezvous=left[0],
                units=task.units,
                csv=given.csv,
                tls=given.tls,
            )
            run = run_storm(request, teller)
            _bring(link, ticket, run.folder)
        left[0].end()
        link.call("/leave", orjson.dumps({"ticket": ticket, "fired": left[0].fired}))
    return run


@contextmanager
def _leaving(link: RendezvousClient, ticket: str) -> Iterator[list[Presence]]:
    """Tell the rendezvous where the block ends early, so that nobody waits for this shard."""
    left: list[Presence] = []
    try:
        yield left
    except BaseException as error:
        fired = any(presence.fired for presence in left)
        for presence in left:
            presence.end()
        why = _told(error) if isinstance(error, Exception) else "interrupted"
        told: dict[str, object] = {"ticket": ticket, "why": one_line(why), "fired": fired}
        with suppress(FlashsaleError):
            link.call("/leave", orjson.dumps(told), patience_s=0)
        raise


def _told(error: Exception) -> str:
    return str(error) if isinstance(error, FlashsaleError) else repr(error)


def _fetched(link: RendezvousClient, told: _Joined, folder: Path) -> Task:
    """What the rendezvous has, in `folder`."""
    here = RunFolder(folder)
    for name, size in told.files.items():
        if name not in (ATTEMPTS_FILE, here.scenario.name, USERS_FILE):
            raise UsageError(f"the rendezvous has a file {name!r}; it is of another version")
        write_file(folder / name, _pieces(link, name, size))
    try:
        plan = Plan.of(read_plan(here.attempts))
        scenario = scenario_of(read_file(here.scenario))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"the rendezvous is of another version ({error})") from error
    if plan.digest != told.plan_hash:
        raise UsageError(f"the plan came as {plan.digest}, expected {told.plan_hash}")
    return Task(
        name=told.name,
        plan_hash=told.plan_hash,
        base_url=told.base_url,
        units=told.units,
        scenario=scenario,
        plan=plan,
        users=folder / USERS_FILE,
    )


def _pieces(link: RendezvousClient, name: str, size: int) -> Iterator[bytes]:
    at = 0
    while at < size:
        piece = link.call(f"/files/{name}?at={at}")
        if not piece:
            raise UnreachableError(f"the rendezvous has {at:,} of {size:,} bytes of {name}")
        at += len(piece)
        yield piece


def _hash_of(scenario: Scenario, task: Task) -> str:
    """Of the plan that a scenario makes here, for the users of the rendezvous."""
    count = scenario.load.user_count
    if not scenario.needs_users:
        return plan_of(scenario, []).digest
    if not scenario.target.is_own:
        return plan_of(scenario, list(read_tokens(task.users, count))).digest
    columns = scenario.target.columns(scenario.steps)
    if not columns and not task.users.is_file():
        return plan_of(scenario, list(range(1, count + 1))).digest
    return plan_of(
        scenario, list(read_users(task.users, columns, count, scenario.target.user_column))
    ).digest


def _bring(link: RendezvousClient, ticket: str, folder: RunFolder) -> None:
    """Bring the record of the storm. Raises UnreachableError, with where it lies."""
    try:
        for path in (folder.attempts, folder.scenario, folder.summary, folder.effort):
            if not path.exists():
                continue
            with path.open("rb") as file:
                while piece := file.read(CHUNK_BYTES):
                    at = file.tell() - len(piece)
                    where = f"/shards/{quote(path.name)}?ticket={ticket}&at={at}"
                    link.call(where, piece)
    except UnreachableError as error:
        raise UnreachableError(f"{error}; its record is in {folder.path}") from error
