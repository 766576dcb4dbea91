"""Children: they get all descriptors, die with their parent, and leave no one behind."""

import ctypes
import os
import platform
import resource
import signal
import struct
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from rig.until import until

from flashsale.errors import UnreachableError
from flashsale.stack.process import CommandLine, Process, log_tail

STUBBORN = """\
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("deaf", flush=True)
time.sleep(60)
"""
PARENT = """\
import subprocess, sys, time
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
print("two", flush=True)
time.sleep(60)
"""


def _process(tmp_path: Path, code: str) -> Process:
    command = CommandLine([sys.executable, "-S", "-c", code], os.environ, tmp_path)
    process = Process(command, tmp_path / "log")
    deadline = time.monotonic() + 10
    while not process.log.read_text() and process.exit_code is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return process


def test_a_child_has_every_descriptor_it_may_have(tmp_path: Path) -> None:
    code = "import resource; print(*resource.getrlimit(resource.RLIMIT_NOFILE))"
    process = _process(tmp_path, code)
    process.stop(5)
    soft, hard = process.log.read_text().split()
    assert int(soft) == min(int(hard), 1_048_576)
    assert int(hard) == resource.getrlimit(resource.RLIMIT_NOFILE)[1]


def _slice_us(pid: int) -> float:
    """How long the kernel lets a process run before it looks at the others (sched_getattr)."""
    words = ctypes.create_string_buffer(48)
    number = {"x86_64": 315, "aarch64": 275}[platform.machine()]
    assert ctypes.CDLL(None).syscall(number, pid, words, len(words), 0) == 0
    return float(struct.unpack("=IIQiIQQQ", words.raw)[5] / 1_000)


@pytest.mark.skipif(
    tuple(int(part) for part in platform.release().split(".")[:2]) < (6, 12)
    or platform.machine() not in ("x86_64", "aarch64"),
    reason="this kernel knows no slices of one's own",
)
def test_a_child_and_what_it_starts_have_a_short_slice(tmp_path: Path) -> None:
    command = CommandLine([sys.executable, "-S", "-c", PARENT], os.environ, tmp_path, slice_us=300)
    process = Process(command, tmp_path / "log")
    until(lambda: psutil.Process(process.pid).children(), 10)
    (grandchild,) = psutil.Process(process.pid).children()
    assert (_slice_us(process.pid), _slice_us(grandchild.pid)) == (300, 300)
    assert _slice_us(os.getpid()) != 300
    niceness = psutil.Process(process.pid).nice()
    process.stop(5)
    assert niceness == psutil.Process().nice()


def test_a_deaf_child_is_killed_when_patience_ends(tmp_path: Path) -> None:
    process = _process(tmp_path, STUBBORN)
    process.stop(0.2)
    assert process.exit_code == -signal.SIGKILL


def test_a_childs_children_end_with_it(tmp_path: Path) -> None:
    process = _process(tmp_path, PARENT)
    (grandchild,) = psutil.Process(process.pid).children()
    os.kill(process.pid, signal.SIGKILL)
    process.kill()
    psutil.wait_procs([grandchild], timeout=5)
    assert not psutil.pid_exists(grandchild.pid) or grandchild.status() == psutil.STATUS_ZOMBIE


def test_a_child_ends_with_a_killed_parent(tmp_path: Path) -> None:
    code = (
        "import os, sys, time; from pathlib import Path\n"
        "from flashsale.stack.process import CommandLine, Process\n"
        f"child = Process(CommandLine([sys.executable, '-c', {STUBBORN!r}], os.environ, "
        f"Path({str(tmp_path)!r})), Path({str(tmp_path / 'child.log')!r}))\n"
        "print(child.pid, flush=True); time.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout
        child = psutil.Process(int(parent.stdout.readline()))
        parent.kill()
    psutil.wait_procs([child], timeout=5)
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE


def test_ctrl_c_in_the_terminal_is_the_parents_alone(tmp_path: Path) -> None:
    process = _process(tmp_path, PARENT)
    assert os.getsid(process.pid) == process.pid != os.getsid(0)
    process.kill()


def test_a_program_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(UnreachableError, match="cannot run /no/such/program: No such file"):
        Process(CommandLine(["/no/such/program"], os.environ, tmp_path), tmp_path / "log")


def test_a_log_tail_is_the_end_and_says_when_there_is_none(tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert log_tail(log) == "  (its log is empty)"
    log.write_text("\n".join(f"line {number}" for number in range(100)))
    assert log_tail(log, lines=2) == "  line 98\n  line 99"


def test_the_end_of_a_child_is_noticed_where_the_kernel_reaps_it(tmp_path: Path) -> None:
    """Some shells and init programs have whatever they start ignore SIGCHLD."""
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        process = _process(tmp_path, "import time; print(1, flush=True); time.sleep(60)")
        assert process.exit_code is None
        process.strike()
        until(lambda: process.exit_code == 0)
        process.stop(5)
    finally:
        signal.signal(signal.SIGCHLD, before)


class _Signalled(BaseException):
    """As KeyboardInterrupt: raised by a handler, wherever the main thread is."""


def test_a_signal_in_the_midst_of_a_look_at_it_is_no_end_of_looking(tmp_path: Path) -> None:
    """Popen looks under a lock, which what a handler raises can leave taken for ever."""
    process = _process(tmp_path, STUBBORN)

    def interrupt(*_: object) -> None:
        raise _Signalled

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        for _ in range(300):
            signal.setitimer(signal.ITIMER_REAL, 0.0002)
            with suppress(_Signalled):
                while True:
                    assert process.exit_code is None
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    process.strike()
    until(lambda: process.exit_code == -signal.SIGKILL)
    process.kill()
