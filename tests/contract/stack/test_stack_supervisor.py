"""Supervision with stand-in replicas: who died is restarted, who is silent too, with patience."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
from rig.fake_replicas import CHILD, COMMANDS, DYING, MUTE

from flashsale.cli.serve import LiveWatcher, insist
from flashsale.errors import UnreachableError
from flashsale.stack import nginx
from flashsale.stack.port import Port
from flashsale.stack.service import Member, Phase
from flashsale.stack.settings import ExternalStores, StackSettings
from flashsale.stack.stack import SaleCommands, Stack
from flashsale.stack.state import held, is_held, read_state, served
from flashsale.stack.supervisor import Supervisor

SETTINGS = StackSettings(
    port=0,
    replicas=2,
    replica_port=0,
    start_timeout_s=10,
    probe_timeout_s=0.3,
    probe_failures_max=2,
    restart_warn_after=3,
)


class Recorder:
    """A watcher that keeps what it is told."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)

    def show(self, stack: Stack) -> None:
        """Not of interest here."""


class AtOnce(Executor):
    """Answers questions before `run_once` returns, so that a test need not wait for a thread."""

    def submit(self, ask: Callable[..., bool], /, *args: object, **kwargs: object) -> Future[bool]:  # type: ignore[override]
        answer: Future[bool] = Future()
        answer.set_result(ask(*args, **kwargs))
        return answer


@pytest.fixture
def external(ledger_url: str, cache_url: str, mysql_url: str) -> ExternalStores:
    return ExternalStores(ledger_url, cache_url, mysql_url)


@pytest.fixture
def stack(tmp_path: Path, external: ExternalStores) -> Iterator[Stack]:
    stack = Stack(SETTINGS, tmp_path / "state", external, COMMANDS)
    with served(stack.state_dir):
        stack.start(lambda line: None)
        yield stack
        stack.stop()


def _member(stack: Stack, name: str) -> Member:
    return next(member for member in stack.members if member.service.name == name)


def _pid(member: Member) -> int:
    assert member.service.process
    return member.service.process.pid


def _await_death(member: Member) -> None:
    deadline = time.monotonic() + 5
    while member.service.process and member.service.process.exit_code is None:
        assert time.monotonic() < deadline
        time.sleep(0.005)


def _await_up(supervisor: Supervisor, member: Member, now: float) -> None:
    deadline = time.monotonic() + 10
    while member.phase is not Phase.UP:
        assert time.monotonic() < deadline
        supervisor.run_once(now, AtOnce())
        time.sleep(0.01)


def test_external_stores_are_used_and_not_started(stack: Stack, external: ExternalStores) -> None:
    assert [m.service.name for m in stack.members] == ["r1", "r2", "c1", "nginx"]
    state = read_state(stack.state_dir)
    assert state is not None
    assert state.ready
    assert (state.ledger_url, state.cache_url, state.mysql_url) == (
        external.ledger_url,
        external.cache_url,
        external.mysql_url,
    )
    assert {child.name: child.kind for child in state.children} == {
        "r1": "replica", "r2": "replica", "c1": "worker", "nginx": "nginx"
    }  # fmt: skip


def test_children_get_the_stores_in_their_environment(stack: Stack) -> None:
    environment = psutil.Process(_pid(_member(stack, "r1"))).environ()
    assert environment["FLASHSALE_LEDGER_URL"] == stack.state.ledger_url
    assert environment["FLASHSALE_CACHE_URL"] == stack.state.cache_url
    assert environment["FLASHSALE_MYSQL_URL"] == stack.state.mysql_url


def test_a_terminal_sees_events_and_a_table(
    stack: Stack, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    with LiveWatcher() as watcher:
        watcher.say("before the table")
        watcher.show(stack)
        watcher.say("beside the [table]")
        _member(stack, "r2").phase = Phase.SILENT
        watcher.show(stack)
    shown = capsys.readouterr().out
    for text in ("before the table", "beside the [table]", stack.base_url, "r1", "not answering"):
        assert text in shown
    assert "[red]" not in shown, "a state has a colour, not its name"


def test_nothing_happens_while_all_is_well(stack: Stack) -> None:
    tally = Supervisor(stack, Recorder()).run_once(time.monotonic(), AtOnce())
    assert (tally.deaths, tally.restarts, tally.silences) == (0, 0, 0)


@pytest.mark.parametrize("name", ["r1", "c1", "nginx"])
def test_a_killed_child_comes_back_on_its_port(stack: Stack, name: str) -> None:
    watcher = Recorder()
    supervisor = Supervisor(stack, watcher)
    member = _member(stack, name)
    pid, port = _pid(member), member.service.port.number
    os.kill(pid, signal.SIGKILL)
    _await_death(member)
    now = time.monotonic()

    assert supervisor.run_once(now, AtOnce()).deaths == 1
    assert member.phase is Phase.DOWN
    assert supervisor.run_once(now + 0.19, AtOnce()).restarts == 0  # the wait is 0.2 s
    assert supervisor.run_once(now + 0.2, AtOnce()).restarts == 1
    _await_up(supervisor, member, now + 0.3)

    assert _pid(member) != pid
    assert member.service.port.number == port
    assert member.state.restarts == 1
    assert f"{name} was ended by SIGKILL; starting it again in 0.2 s" in watcher.lines
    assert f"{name} answers again" in watcher.lines


def test_a_child_that_is_held_stays_away_until_it_is_released(stack: Stack) -> None:
    supervisor, member = Supervisor(stack, Recorder()), _member(stack, "c1")
    with held(stack.state_dir, ["c1"]):
        os.kill(_pid(member), signal.SIGKILL)
        _await_death(member)
        now = time.monotonic()
        assert supervisor.run_once(now, AtOnce()).deaths == 1
        assert supervisor.run_once(now + 60, AtOnce()).restarts == 0
        assert not is_held(stack.state_dir, "r1")
    assert supervisor.run_once(now + 60, AtOnce()).restarts == 1
    assert list(stack.state_dir.glob("*.held")) == []


def test_who_has_died_holds_nobody(tmp_path: Path) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    with held(tmp_path, ["c1"]):
        assert is_held(tmp_path, "c1")
        (mark,) = tmp_path.glob("*.held")
        gone.wait(20)
        mark.write_text(str(gone.pid))
        assert not is_held(tmp_path, "c1")


def test_a_child_that_keeps_dying_is_tried_ever_more_rarely(stack: Stack) -> None:
    watcher = Recorder()
    supervisor = Supervisor(stack, watcher)
    member = _member(stack, "r1")
    member.service._command = DYING  # type: ignore[attr-defined]
    os.kill(_pid(member), signal.SIGKILL)
    now = time.monotonic()
    waits = []
    for _ in range(8):
        _await_death(member)
        supervisor.run_once(now, AtOnce())
        waits.append(round(member.due_at - now, 3))
        now = member.due_at
        supervisor.run_once(now, AtOnce())
    assert waits == [0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10, 10]
    told = [line for line in watcher.lines if "3 times in a row" in line]
    assert len(told) == 1
    assert "no luck" in told[0]


def test_a_stopped_child_is_restarted_after_enough_silence(stack: Stack) -> None:
    watcher = Recorder()
    supervisor = Supervisor(stack, watcher)
    member = _member(stack, "r2")
    pid = _pid(member)
    os.kill(pid, signal.SIGSTOP)
    now = member.due_at
    rounds = 0
    while member.service.process and rounds < 10:
        tally = supervisor.run_once(now, AtOnce())
        now = max(now, member.due_at) if tally.silences else now
        rounds += 1
    assert "r2 did not answer its probe (2 of 2)" in watcher.lines
    assert "r2 was ended by SIGKILL; starting it again in 0.2 s" in watcher.lines
    supervisor.run_once(member.due_at, AtOnce())
    _await_up(supervisor, member, member.started_at + 0.1)
    assert _pid(member) != pid


def test_a_slow_probe_holds_nobody_up(stack: Stack) -> None:
    supervisor = Supervisor(stack, Recorder())
    os.kill(_pid(_member(stack, "r1")), signal.SIGSTOP)
    with ThreadPoolExecutor(4) as asking:
        started = time.monotonic()
        supervisor.run_once(_member(stack, "r1").due_at, asking)
        assert time.monotonic() - started < SETTINGS.probe_timeout_s
    os.kill(_pid(_member(stack, "r1")), signal.SIGCONT)


@pytest.mark.parametrize(
    ("command", "told"), [(DYING, "r1 ended at once"), (MUTE, "r1 was not ready within 0.5 s")]
)
def test_a_failed_start_tells_the_log_and_leaves_nothing(
    tmp_path: Path, external: ExternalStores, command: tuple[str, ...], told: str
) -> None:
    settings = SETTINGS.model_copy(update={"start_timeout_s": 0.5})
    stack = Stack(settings, tmp_path / "state", external, SaleCommands(command, CHILD))
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    with served(stack.state_dir):
        with pytest.raises(UnreachableError, match=told):
            stack.start(lambda line: None)
        stack.stop()
    assert {child.pid for child in psutil.Process().children(recursive=True)} <= before


def test_a_forgetful_ledger_is_refused_before_anything_starts(
    tmp_path: Path, cache_url: str, mysql_url: str
) -> None:
    external = ExternalStores(cache_url, None, mysql_url)
    stack = Stack(SETTINGS, tmp_path / "state", external, insist=insist)
    with served(stack.state_dir):
        with pytest.raises(UnreachableError, match="ledger: appendonly is no"):
            stack.start(lambda line: pytest.fail(f"{line} came before the examination"))
        stack.stop()
    assert stack.members == []


def test_two_stacks_start_side_by_side(tmp_path: Path, external: ExternalStores) -> None:
    one, two = (Stack(SETTINGS, tmp_path / name, external, COMMANDS) for name in ("one", "two"))
    with served(one.state_dir), served(two.state_dir):
        for stack in (one, two):
            stack.start(lambda line: None)
        ports = [m.service.port.number for stack in (one, two) for m in stack.members]
        assert len(set(ports)) == len(ports)
        for stack in (one, two):
            stack.stop()


def test_an_operators_token_is_told_to_replicas_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And of what a replica is told, only a replica has its account: private stores see to that."""
    monkeypatch.setenv("FLASHSALE_OPERATOR_TOKEN", "token-of-the-operator")
    monkeypatch.setenv("FLASHSALE_LEDGER_URL", "redis://:other-password@host/0")
    settings = SETTINGS.model_copy(
        update={"replicas": 1, "mariadb_buffer_pool_mb": 32, "mariadb_redo_log_mb": 16}
    )
    stack = Stack(settings, tmp_path / "state", commands=COMMANDS)
    with served(stack.state_dir):
        try:
            stack.start(lambda line: None)
            told = {m.service.kind: _environment(m) for m in stack.members}
            account = {kind: f"unix://{kind}:".encode() for kind in ("replica", "worker")}
            owners = [url.encode() for url in (stack.state.ledger_url, stack.state.mysql_url)]
        finally:
            stack.stop()
    assert set(told) == {
        *("redis-ledger", "redis-cache", "mariadb", "nginx", "replica", "worker"),
    }
    assert [kind for kind, seen in told.items() if b"token-of-the-operator" in seen] == ["replica"]
    assert [kind for kind, seen in told.items() if b"other-password" in seen] == []
    assert [kind for kind, seen in told.items() if b"FLASHSALE_" in seen] == ["replica", "worker"]
    for kind, begin in account.items():
        assert begin in told[kind]
    assert not [kind for kind, seen in told.items() for url in owners if url in seen]


def _environment(member: Member) -> bytes:
    return Path(f"/proc/{_pid(member)}/environ").read_bytes()


@pytest.mark.parametrize(
    ("connections", "links", "by_socket"),
    [(8_192, {}, True), (16_384, {}, False), (8_192, {"nginx->r1": 9}, False)],
)
def test_replicas_listen_on_sockets_where_their_queues_hold_what_nginx_asks(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    connections: int,
    links: dict[str, int],
    by_socket: bool,
) -> None:
    """A port beside a socket serves no sale, so who is asked through a relay has none."""
    monkeypatch.setattr(nginx, "_longest_queue", lambda: 4_096)
    update = {"replicas": 1, "nginx_connections": connections, "links": links}
    stack = Stack(SETTINGS.model_copy(update=update), tmp_path / "state")
    replica = stack._replica(0)
    conf = stack._nginx(Port.free(), [replica])
    try:
        command = [str(part) for part in replica.prepare().arguments]
        place = str(tmp_path / "state/replicas/r1.sock")
        assert (place in command) == ("--socket" in command) == by_socket
        port = links.get("nginx->r1", replica.port.number)
        server = f"unix:{place}" if by_socket else f"127.0.0.1:{port}"
        assert f'server "{server}" ' in conf.render()
    finally:
        replica.stop()
        conf.stop()


def test_replicas_take_the_named_ports_where_they_are_free(
    tmp_path: Path, external: ExternalStores, stack: Stack
) -> None:
    taken = _member(stack, "r1").service.port.number
    settings = SETTINGS.model_copy(update={"replica_port": taken, "replicas": 1})
    other = Stack(settings, tmp_path / "other", external, COMMANDS)
    with served(other.state_dir):
        other.start(lambda line: None)
        assert _member(other, "r1").service.port.number != taken
        other.stop()


def test_a_second_signal_ends_patience(tmp_path: Path, external: ExternalStores) -> None:
    deaf = CHILD[3].replace("lambda *_: sys.exit(0)", "signal.SIG_IGN")
    code = (
        "import sys; from pathlib import Path\n"
        "from flashsale.cli.serve import PlainWatcher\n"
        "from flashsale.stack.stack import SaleCommands\n"
        "from flashsale.stack.settings import ExternalStores, StackSettings\n"
        "from flashsale.stack.stack import Stack\n"
        "from flashsale.stack.supervisor import Supervisor\n"
        "settings = StackSettings(port=0, replicas=1, replica_port=0, drain_timeout_s=60)\n"
        f"command = (sys.executable, '-S', '-c', {deaf!r}, '{{port}}')\n"
        f"stack = Stack(settings, Path({str(tmp_path / 'state')!r}), {external!r}, "
        "SaleCommands(command, command))\n"
        "sys.exit(Supervisor(stack, PlainWatcher()).run())"
    )
    with subprocess.Popen(
        [sys.executable, "-u", "-c", code], stdout=subprocess.PIPE, text=True
    ) as serve:
        assert serve.stdout
        assert any("ready at" in line for line in serve.stdout)
        serve.send_signal(signal.SIGINT)
        assert any("stopping" in line for line in serve.stdout)
        time.sleep(0.3)
        assert serve.poll() is None  # it waits for the deaf ones
        serve.send_signal(signal.SIGINT)
        assert serve.wait(5) == 130
