"""The library below a process: what a power cut takes and leaves, and what fails on purpose."""

import json
import os
import signal
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flashsale.errors import UsageError
from flashsale.faults import shim
from flashsale.faults.shim import ShimControl, _records, ensure_compiler, install
from flashsale.scenario.fault import PlannedFault, Processes

pytestmark = pytest.mark.skipif(shim.compiler() is None, reason="there is no C compiler")

CUT = PlannedFault.made(at="1s", what="power_cut", whom="ledger")
SLOW = PlannedFault.made(at="1s", what="slow_fsync", whom="ledger", **{"for": "1s"})
CLOCK = PlannedFault.made(at="1s", what="clock", whom="r1", **{"for": "1s"})

Run = Callable[..., "subprocess.CompletedProcess[str]"]
DIES = "os.kill(os.getpid(), 9)"


@pytest.fixture(scope="module")
def state_dir() -> Iterator[Path]:
    """On a disk: memory gives the number of a file that is gone to no other."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        install(Path(folder), [CUT, SLOW, CLOCK], Processes(2, 2))
        yield Path(folder)


@pytest.fixture
def control(state_dir: Path) -> ShimControl:
    """That of a ledger whose files are watched, which has none yet."""
    data = state_dir / "ledger"
    data.mkdir(exist_ok=True)
    for path in data.iterdir():
        path.unlink()
    found = ShimControl.made(state_dir, "ledger", data, keeps_undo=True)
    for path in found.undo.iterdir():
        path.unlink()
    return found


@pytest.fixture
def run(state_dir: Path, control: ShimControl) -> Run:
    """Run lines of Python below the library, in the folder that is watched."""

    def below(*lines: str, of: ShimControl = control) -> "subprocess.CompletedProcess[str]":
        library = str(state_dir / "shim/shim.so")
        return subprocess.run(
            [sys.executable, "-S", "-c", "\n".join(["import os, time, errno", *lines])],
            env={**os.environ, "LD_PRELOAD": library, "FLASHSALE_SHIM": str(of.path)},
            cwd=state_dir / "ledger",
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )

    return below


def opened(name: str, more: str = "") -> str:
    return f"fd = os.open({name!r}, os.O_RDWR | os.O_CREAT{more})"


def test_what_was_not_fsynced_is_gone_and_the_rest_is_there(run: Run, control: ShimControl) -> None:
    done = run(
        opened("log", " | os.O_APPEND"),
        "os.write(fd, b'kept')",
        "os.fsync(fd)",
        "os.write(fd, b'lost')",
        "os.writev(fd, [b'and', b'this'])",
        DIES,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    log = control.path.parent.parent / "ledger/log"
    assert log.read_bytes() == b"keptlostandthis"
    assert control.cut_back() == (2, 1)
    assert log.read_bytes() == b"kept"
    assert control.cut_back() == (0, 0), "a cut is made once"


def test_bytes_that_were_written_over_come_back(run: Run, control: ShimControl) -> None:
    run(
        opened("data"),
        "os.pwrite(fd, b'0123456789', 0)",
        "os.fdatasync(fd)",
        "os.pwrite(fd, b'abc', 2)",
        "os.pwrite(fd, b'XY', 3)",
        "os.ftruncate(fd, 4)",
        "os.pwrite(fd, b'beyond', 20)",
        DIES,
    )
    assert control.cut_back() == (4, 1)
    assert (control.path.parent.parent / "ledger/data").read_bytes() == b"0123456789"


def test_every_way_to_write_is_seen(run: Run, control: ShimControl) -> None:
    run(
        opened("data"),
        "os.write(fd, b'0123456789'); os.fsync(fd)",
        "os.pwritev(fd, [b'ab', b'cd'], 3)",
        "os.posix_fallocate(fd, 0, 30)",
        "os.lseek(fd, 1, os.SEEK_SET); os.write(fd, b'zz')",
        "os.truncate('data', 2)",
        DIES,
    )
    assert control.cut_back() == (4, 1)
    assert (control.path.parent.parent / "ledger/data").read_bytes() == b"0123456789"


def test_what_is_written_through_needs_no_fsync(run: Run, control: ShimControl) -> None:
    run(opened("log", " | os.O_DSYNC"), "os.write(fd, b'kept')", DIES)
    assert control.cut_back() == (0, 0)
    assert (control.path.parent.parent / "ledger/log").read_bytes() == b"kept"


def test_what_a_failing_fsync_was_for_is_gone(run: Run, control: ShimControl) -> None:
    run(opened("log"), "os.write(fd, b'kept'); os.fsync(fd)", DIES)
    control.set("fsync_error", 5)
    run(
        opened("log", " | os.O_APPEND"),
        "os.write(fd, b'lost')",
        "try: os.fsync(fd)",
        "except OSError: pass",
        DIES,
    )
    assert control.cut_back() == (1, 1)
    assert (control.path.parent.parent / "ledger/log").read_bytes() == b"kept"


def test_what_comes_while_an_fsync_runs_is_not_on_disk(run: Run, control: ShimControl) -> None:
    control.set("fsync_delay_ms", 400)
    run(
        "import threading",
        opened("log", " | os.O_APPEND"),
        "os.write(fd, b'kept')",
        "syncing = threading.Thread(target=os.fsync, args=(fd,)); syncing.start()",
        "time.sleep(0.1); os.write(fd, b'late'); syncing.join()",
        DIES,
    )
    run(opened("log", " | os.O_APPEND"), "os.write(fd, b'later')", DIES)
    assert control.cut_back() == (2, 1)
    assert (control.path.parent.parent / "ledger/log").read_bytes() == b"kept"


@pytest.mark.parametrize("ends", ["os.unlink('old')", "os.rename('other', 'old')"])
def test_what_is_gone_by_name_is_not_put_into_whoever_has_its_place(
    run: Run, control: ShimControl, ends: str
) -> None:
    """A file system that gives an inode to the next file would take it for the same file."""
    (control.path.parent.parent / "ledger/other").write_bytes(b"")
    gone = run(
        opened("old"),
        "os.write(fd, b'secret'); os.fsync(fd); os.pwrite(fd, b'XXXXXX', 0)",
        "print(os.fstat(fd).st_ino, flush=True); os.close(fd)",
        ends,
        DIES,
    )
    come = run(
        f"for n in range(200):\n    {opened('new')}\n    os.rename('new', f'new-{{n}}')",
        f"    if os.fstat(fd).st_ino == {gone.stdout.strip()}: break",
        "os.write(fd, b'lost'); print(os.fstat(fd).st_ino, f'new-{n}', flush=True)",
        DIES,
    )
    inode, name = come.stdout.split()
    if inode != gone.stdout.strip():
        pytest.skip("this file system gave the inode to nobody")
    assert control.cut_back() == (1, 1)
    assert (control.path.parent.parent / "ledger" / name).read_bytes() == b""


def test_half_an_undo_record_is_written_over(run: Run, control: ShimControl) -> None:
    """A process that was killed in the middle of one left it; the next goes on before it."""
    run(opened("log"), "os.write(fd, b'one'); os.fsync(fd); os.write(fd, b'two')", DIES)
    (undo,) = control.undo.iterdir()
    undo.write_bytes(undo.read_bytes() + b"half a record")
    run(opened("log", " | os.O_APPEND"), "os.write(fd, b'three')", DIES)
    assert control.cut_back() == (2, 1)
    assert (control.path.parent.parent / "ledger/log").read_bytes() == b"one"


def test_a_kill_and_then_a_cut_take_what_both_have_left(run: Run, control: ShimControl) -> None:
    run(opened("log"), "os.write(fd, b'one')", "os.fsync(fd)", "os.write(fd, b'two')", DIES)
    run(opened("log", " | os.O_APPEND"), "os.write(fd, b'three')", DIES)
    assert control.cut_back() == (2, 1)
    log = control.path.parent.parent / "ledger/log"
    assert log.read_bytes() == b"one"
    run(opened("log", " | os.O_APPEND"), "os.write(fd, b'two')", DIES)
    run(opened("log"), "os.fsync(fd)", DIES)  # what another process had written
    assert control.cut_back() == (0, 0)
    assert log.read_bytes() == b"onetwo"


def test_a_removed_file_leaves_nothing_to_whoever_has_its_place(
    run: Run, control: ShimControl
) -> None:
    run(
        opened("old"),
        "os.write(fd, b'x' * 100); os.close(fd); os.unlink('old')",
        opened("new"),
        "os.write(fd, b'kept'); os.fsync(fd)",
        opened("temporary"),
        "os.write(fd, b'kept, too'); os.fsync(fd); os.rename('temporary', 'new')",
        DIES,
    )
    assert control.cut_back() == (0, 0)
    assert (control.path.parent.parent / "ledger/new").read_bytes() == b"kept, too"


def test_an_undo_file_may_have_the_place_of_a_file_that_is_gone(
    run: Run, control: ShimControl
) -> None:
    """It is no watched file: whoever took it for one would wait for a lock that it has itself."""
    done = run(
        "for n in range(50):",
        f"    {opened('old', ' | os.O_DSYNC')}; os.write(fd, b'x'); os.rename('old', f'old-{{n}}')",
        "    os.close(fd)",
        "for n in range(50): os.unlink(f'old-{n}')",
        "for n in range(20):",
        f"    {opened('new')}; os.write(fd, b'kept'); os.fsync(fd); os.write(fd, b'lost')",
        "    os.rename('new', f'new-{n}')",
        DIES,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert control.cut_back() == (20, 20)


def test_threads_that_write_and_fsync_lose_no_byte_that_was_fsynced(
    run: Run, control: ShimControl
) -> None:
    """Each thread tells how far it has fsynced, one byte at a time; a cut leaves it that much, and
    nothing of what is written when all are done."""
    done = run(
        "import threading",
        opened("data"),
        "told = os.open('../told', os.O_RDWR | os.O_CREAT)",
        "def work(n):",
        "    for i in range(400):",
        "        os.pwrite(fd, bytes([i % 250 + 1]), 1000 * n + i)",
        "        if i % 7 == 0:",
        "            os.fdatasync(fd); os.pwrite(told, i.to_bytes(4, 'little'), 4 * n)",
        "threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]",
        "[t.start() for t in threads]; [t.join() for t in threads]",
        "os.pwrite(fd, b'lost' * 1000, 4000)",
        DIES,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    control.cut_back()
    data = (control.path.parent.parent / "ledger/data").read_bytes()
    told = struct.unpack("<4I", (control.path.parent.parent / "told").read_bytes())
    assert len(data) <= 4000
    for n, last in enumerate(told):
        assert data[1000 * n : 1000 * n + last + 1] == bytes(i % 250 + 1 for i in range(last + 1))


def test_fsync_is_slow_or_fails_and_a_disk_is_full_while_it_is_told_so(
    run: Run, control: ShimControl
) -> None:
    tried = (
        opened("log"),
        "def told(act):",
        "    try: act(); return ''",
        "    except OSError as error: return errno.errorcode[error.errno]",
        "began = time.monotonic()",
        "found = [told(lambda: os.write(fd, b'1')), told(lambda: os.fsync(fd)),"
        " told(lambda: os.pwrite(fd, b'2', 0)), told(lambda: os.posix_fallocate(fd, 0, 9))]",
        "import json; print(json.dumps([*found, time.monotonic() - began >= 0.2]))",
    )
    assert json.loads(run(*tried).stdout) == ["", "", "", "", False]
    control.set("fsync_delay_ms", 200)
    assert json.loads(run(*tried).stdout) == ["", "", "", "", True]
    control.set("fsync_delay_ms", 0)
    control.set("fsync_error", 5)
    assert json.loads(run(*tried).stdout) == ["", "EIO", "", "", False]
    control.set("fsync_error", 0)
    control.set("write_error", 28)
    (control.path.parent.parent / "ledger/log").write_bytes(b"")
    assert json.loads(run(*tried).stdout) == ["ENOSPC", "", "ENOSPC", "ENOSPC", False]
    elsewhere = "os.makedirs('../beside', exist_ok=True); os.chdir('../beside')"
    assert json.loads(run(elsewhere, *tried).stdout) == ["", "", "", "", False]
    (control.path.parent.parent / "ledger/log").write_bytes(b"123456789")
    assert json.loads(run(*tried).stdout) == ["", "", "", "", False], "it does not get longer"


def test_a_clock_is_another_for_one_process_from_one_moment_to_the_next(
    state_dir: Path, run: Run
) -> None:
    control = ShimControl(state_dir / "shim/r1")
    lines = (
        "import ctypes; libc = ctypes.CDLL(None); of_day = (ctypes.c_long * 2)()",
        "libc.gettimeofday(of_day, None); libc.time.restype = ctypes.c_long",
        "print(time.time(), of_day[0], libc.time(None), time.monotonic())",
    )

    def told() -> list[float]:
        return [float(word) for word in run(*lines, of=control).stdout.split()]

    control.set("clock_ns", -3600 * 10**9)
    *of_day, counted_s = told()
    assert all(3590 < time.time() - shifted < 3630 for shifted in of_day)
    assert 0 <= time.monotonic() - counted_s < 30
    control.set("clock_ns", 0)
    assert all(abs(time.time() - found) < 30 for found in told()[:3])


@given(st.lists(st.tuples(st.integers(0, 99), st.binary(max_size=9), st.integers(0, 99))))
def test_half_a_record_is_of_a_write_that_never_was(
    records: list[tuple[int, bytes, int]],
) -> None:
    text = struct.pack("=Q", 8)
    for offset, old, size in records:
        text += struct.pack("=QQQ", offset, len(old), size) + old
    assert list(_records(text)) == [(offset, size, old) for offset, old, size in records]
    if records:
        assert len(list(_records(text[:-1]))) == len(records) - 1


def test_without_a_compiler_it_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shim, "compiler", lambda: None)
    ensure_compiler([PlannedFault.made(at="1s", what="kill", whom="ledger")])
    with pytest.raises(UsageError, match="'power_cut' needs a C compiler") as error:
        ensure_compiler([CUT])
    assert "\n" not in str(error.value)


def test_a_path_that_the_loader_would_tear_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--state-dir"):
        install(tmp_path / "with a space", [CUT], Processes(1, 1))


def test_each_process_that_is_befallen_has_a_control_file(tmp_path: Path) -> None:
    clock = PlannedFault.made(at="1s", what="clock", whom="worker", **{"for": "1s"})
    told = install(tmp_path, [CUT, clock], Processes(3, 2))
    shims = json.loads(told["FLASHSALE_STACK_SHIMS"])
    assert set(shims) == {"ledger", "c1", "c2"}
    assert all(Path(path).is_file() for path in shims.values())
