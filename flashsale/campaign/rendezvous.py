"""A storm of several machines, from its rendezvous: shards come over HTTP, are told one instant
and bring their records, which become one run; thresholds are judged on the whole.

    POST /join      {ticket, number, of, who}         what there is to fetch
    GET  /files/…   ?at=                              scenario, plan, users: a piece of the file
    POST /report    {ticket, plan_hash, ready, …}     instant or null, why to stop or null, a clock
    POST /shards/…  ?ticket=&at=                      a piece of a file of the shard's run
    POST /leave     {ticket, why, fired}

What the sale's stores hold before and after is this process's to see: shards know HTTP alone.
"""

import asyncio
import hmac
import ipaddress
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import uvloop

from flashsale.asking import read_json
from flashsale.campaign.campaign import SILENT, StormRun, Teller, record_stack
from flashsale.campaign.joining import CHUNK_BYTES
from flashsale.campaign.merging import WholeStorm
from flashsale.campaign.storming import (
    StormRequest,
    baseline_taken,
    count_of_loads,
    keep_units,
    mark_end,
    reported,
    tokens_of,
    users_of,
)
from flashsale.errors import UnreachableError, UsageError, one_line
from flashsale.model import ending
from flashsale.run.folder import create_run_folder
from flashsale.server.app import App, Router
from flashsale.server.http.server import Server, listen
from flashsale.server.request import Refused, Request
from flashsale.server.response import NOT_FOUND, UNAUTHORIZED, Response, ok, rejected, respond
from flashsale.settings import RendezvousSettings, ReplicaSettings
from flashsale.storm.attack.attack import Progress, ShowProgress
from flashsale.storm.attack.instants import interrupts
from flashsale.storm.crew.merge import merge_runs
from flashsale.storm.crew.rendezvous import Meeting, MeetingLimits, Report
from flashsale.storm.crew.shard import SHARDS_MAX, Shard, units_by_text, whole_plan
from flashsale.storm.plan.plan import Plan
from flashsale.storm.plan.planning import plan_of

FILE_BYTES_MAX = 4 * 1024**3
"""What a shard may bring of one file."""

OVERTIME_S = 120.0
"""What a shard has for its reports and to bring its record, after all its timeouts."""

_STOP_S = 30.0
_TICK_S = 0.05
_LAST_ANSWERS_S = 2.0
_SAID_MAX = 200


@dataclass(frozen=True)
class MeetingPlace:
    """Where shards meet, and how many they are."""

    shards: int
    host: str
    port: int


def run_rendezvous(request: StormRequest, place: MeetingPlace, teller: Teller = SILENT) -> StormRun:
    """Have `place.shards` shards fire the storm, and leave the run that they make.

    A run that went wrong is returned, its missing parts named among the generator's complaints.
    Raises UsageError and UnreachableError for what kept it from being prepared.
    """
    settings = RendezvousSettings.load()
    _ensure_secret(place, settings)
    plan = _plan(request)
    if place.shards > min(SHARDS_MAX, plan.connection_count // plan.clicks):
        raise UsageError(
            f"--shards: found {place.shards}, expected at most one shard a connection "
            f"({plan.connection_count // plan.clicks:,})"
        )
    sockets = _listen(place)
    scenario = request.scenario
    baseline = baseline_taken(request, teller)
    folder = create_run_folder(scenario.name, request.out, datetime.now(UTC), teller.say)
    units = keep_units(request, baseline, folder)
    if request.state_dir is not None:
        record_stack(folder.path, request.state_dir)
    loads = count_of_loads(request)
    known = units or _planned_units(request)
    whole = WholeStorm(scenario, request.base_url, request.tokens, plan, folder, known)
    with whole.files() as files, interrupts() as taken:
        server = _RendezvousServer(whole, files, place, settings)
        teller.say(
            f"waits for {place.shards} shards at http://{place.host}:{server.port_of(sockets)}, "
            f"for {settings.gather_timeout_s:g} s at most"
        )
        with (
            teller.storming(None) as show,
            asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
            taken.told(lambda: server.meeting.stop("the rendezvous was interrupted")),
        ):
            runner.run(server.serve(sockets, show))
        mark_end(request, folder, teller)
        losses = list(server.meeting.complaints)
        runs = [whole.run_of(participant, losses) for participant in server.meeting.participants]
        for line in losses:
            teller.say(line)
        finished = merge_runs(runs, whole_plan(runs), folder, losses, taken.exit_code)
        summary = reported(request, folder, finished, loads, teller)
    run = StormRun(summary, folder)
    teller.stormed(run)
    return run


def _ensure_secret(place: MeetingPlace, settings: RendezvousSettings) -> None:
    """Raises UsageError where anybody could come and take everybody's sessions."""
    try:
        is_local = ipaddress.ip_address(place.host).is_loopback
    except ValueError:
        is_local = place.host == "localhost"
    if not is_local and not settings.secret.get_secret_value():
        raise UsageError(
            f"--host {place.host}: others could take the users' sessions; set "
            "FLASHSALE_RENDEZVOUS_SECRET, or the file in FLASHSALE_RENDEZVOUS_SECRET_FILE, here "
            "and for every shard"
        )


def _plan(request: StormRequest) -> Plan:
    if request.plan is not None:
        return Plan.of(request.plan)
    columns = users_of(request)
    return plan_of(request.scenario, list(tokens_of(request, columns)))


def _planned_units(request: StormRequest) -> dict[int, int]:
    sale = request.scenario.sale
    return {} if sale is None else dict(sale.units_by_voucher())


def _listen(place: MeetingPlace) -> list[Any]:
    try:
        return list(listen(place.host, place.port))
    except OSError as error:
        raise UnreachableError(
            f"cannot listen on {place.host}:{place.port} ({error.strerror or error}); "
            "choose another --host or --port"
        ) from error


class _RendezvousServer:
    """The service: what shards ask over HTTP, and the clock that drives their meeting."""

    def __init__(
        self,
        whole: WholeStorm,
        files: dict[str, Path],
        place: MeetingPlace,
        settings: RendezvousSettings,
    ) -> None:
        self._whole, self._files = whole, files
        self._secret = settings.secret.get_secret_value().encode()
        self._wall_us, self._began_ns = time.time_ns() // 1000, time.monotonic_ns()
        timeouts = whole.scenario.timeouts
        run_ms = timeouts.run_ms + timeouts.drain_ms + timeouts.resolve_ms
        limits = MeetingLimits(
            gather_ns=round(settings.gather_timeout_s * 1e9),
            silence_ns=round(settings.silence_s * 1e9),
            run_ns=(settings.lead_ms + run_ms) * 1_000_000 + round(OVERTIME_S * 1e9),
            stop_ns=round(_STOP_S * 1e9),
            lead_us=settings.lead_ms * 1000,
        )
        self.meeting = Meeting(place.shards, whole.plan.digest, limits, self._began_ns)

    @staticmethod
    def port_of(sockets: list[Any]) -> int:
        """Which port it is, where any would do."""
        return int(sockets[0].getsockname()[1])

    def _now_us(self) -> int:
        """The clock of the rendezvous: the wall's when it began, and nobody sets it since."""
        return self._wall_us + (time.monotonic_ns() - self._began_ns) // 1000

    async def serve(self, sockets: list[Any], show: ShowProgress) -> None:
        """Until every shard is done or lost."""
        limits = ReplicaSettings.load(body_bytes_max=CHUNK_BYTES)
        server = Server(App(self._routes(), limits), limits)
        await server.start(sockets)
        try:
            while not self.meeting.look(time.monotonic_ns()):
                await asyncio.sleep(_TICK_S)
                self._show(show)
            await server.drain(_LAST_ANSWERS_S)
        finally:
            await server.aclose()

    def _show(self, show: ShowProgress) -> None:
        if self.meeting.instant_us is None:
            return
        settled, in_flight, outcomes = self.meeting.progress()
        elapsed_s = max(0, self._now_us() - self.meeting.instant_us) / 1e6
        show(Progress(elapsed_s, len(self._whole.plan), settled, in_flight, outcomes))

    def _routes(self) -> Router:
        router = Router()
        router.add("GET", "/healthz", self._healthy)
        router.add("POST", "/join", self._known(self._join))
        router.add("GET", "/files/{name}", self._known(self._file))
        router.add("POST", "/report", self._known(self._report))
        router.add("POST", "/shards/{name}", self._known(self._piece))
        router.add("POST", "/leave", self._known(self._leave))
        return router

    async def _healthy(self, request: Request, _tail: str) -> Response:
        return ok()

    def _known(
        self, handler: Callable[[Request, str], Awaitable[Response]]
    ) -> Callable[[Request, str], Awaitable[Response]]:
        """The handler, for whoever knows the secret and says what can be read."""

        async def checked(request: Request, tail: str) -> Response:
            if not hmac.compare_digest(request.token.encode("latin-1"), self._secret):
                return UNAUTHORIZED
            try:
                return await handler(request, tail)
            except (KeyError, TypeError, ValueError, AttributeError) as error:
                raise Refused(rejected(f"cannot be read: {error!r}"[:_SAID_MAX], 400)) from error

        return checked

    async def _join(self, request: Request, _tail: str) -> Response:
        told = await _json(request)
        shard, ticket = Shard(int(told["number"]), int(told["of"])), str(told["ticket"])
        if not 1 <= shard.number <= shard.of or not ticket:
            raise ValueError(str(shard))
        who = one_line(str(told["who"])[:_SAID_MAX])
        if refused := self.meeting.join(ticket, shard, who, time.monotonic_ns()):
            return rejected(refused, 409)
        whole = self._whole
        return _plain(
            {
                "name": whole.name,
                "plan_hash": whole.plan.digest,
                "base_url": whole.base_url,
                "units": units_by_text(whole.units),
                "files": {name: path.stat().st_size for name, path in self._files.items()},
            }
        )

    async def _file(self, request: Request, name: str) -> Response:
        path = self._files.get(name)
        if path is None:
            return NOT_FOUND
        with path.open("rb") as file:
            file.seek(int(request.query("at")))
            return _bytes(file.read(CHUNK_BYTES))

    async def _report(self, request: Request, _tail: str) -> Response:
        now_us = self._now_us()  # first: what follows is not the way's
        told = await _json(request)
        report = Report(
            ticket=str(told["ticket"]),
            plan_hash=one_line(str(told["plan_hash"])[:_SAID_MAX]),
            is_ready=told["ready"] is True,
            interrupted=told["interrupted"] is True,
            settled=int(told.get("settled", 0)),
            in_flight=int(told.get("in_flight", 0)),
            outcomes={ending(name): int(n) for name, n in told.get("outcomes", {}).items()},
        )
        if refused := self.meeting.report(report, time.monotonic_ns(), now_us):
            return rejected(refused, 409)
        meeting = self.meeting
        return _plain(
            {"instant_us": meeting.instant_us, "stop": meeting.stopping, "clock_us": now_us}
        )

    async def _piece(self, request: Request, name: str) -> Response:
        participant, at = (
            self.meeting.participant(request.query("ticket")),
            int(request.query("at")),
        )
        if participant is None or participant.is_over:
            return rejected("this shard is not known here, or counts as lost", 409)
        place = self._whole.place_of(participant)
        known = (place.attempts, place.scenario, place.summary, place.effort)
        path = next((path for path in known if path.name == name), None)
        if path is None:
            return NOT_FOUND
        piece = await request.body()
        place.path.mkdir(parents=True, exist_ok=True)
        path.touch()
        if not 0 <= at <= path.stat().st_size or at + len(piece) > FILE_BYTES_MAX:
            return rejected(f"no room for this piece of {name} at {at}", 409)
        with path.open("r+b") as file:
            file.seek(at)
            file.write(piece)
        participant.heard_ns = time.monotonic_ns()
        return ok()

    async def _leave(self, request: Request, _tail: str) -> Response:
        told = await _json(request)
        why = told.get("why")
        self.meeting.leave(
            str(told["ticket"]),
            None if why is None else one_line(str(why)[:_SAID_MAX]),
            told.get("fired") is True,
        )
        return ok()


async def _json(request: Request) -> Any:
    return read_json(await request.body())


def _plain(told: object) -> Response:
    return _bytes(orjson.dumps(told))


def _bytes(body: bytes) -> Response:
    return respond(200, body)
