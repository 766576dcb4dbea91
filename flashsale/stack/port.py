"""Where a server of ours is reached: a TCP port that is ours from before a server listens on it
until after it has stopped, or a Unix socket that nobody else can open.
"""

import errno
import hashlib
import os
import random
import socket
import stat
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Self

import psutil

from flashsale.errors import UnreachableError
from flashsale.files import private_folder

LOOPBACK = "127.0.0.1"
ANY_ADDRESS = "0.0.0.0"  # noqa: S104 - only where the user asks for it

_LOWEST = 10_240
_TRIES = 200


class Port:
    """A reserved port.

    The reservation is a socket that is bound and never listens. It is bound without
    SO_REUSEADDR, so that of two stacks only one can have it, and gets the option afterwards, so
    that a server (every one of ours sets it) can bind and listen beside it. The kernel gives a
    reserved port to no outgoing connection, so a restarted server finds it free.
    """

    def __init__(self, reservation: socket.socket, *, fixed: bool) -> None:
        reservation.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._reservation = reservation
        self.host, self.number = reservation.getsockname()
        self.fixed = fixed  # named by the user: nothing else will do

    def __repr__(self) -> str:
        return f"Port({self.host}:{self.number})"

    @classmethod
    def free(cls, host: str = LOOPBACK) -> Self:
        """Any port that nobody has, below the range of outgoing connections where there is room."""
        highest = _first_outgoing_port() - 1
        if highest - _LOWEST > _TRIES:
            for _ in range(_TRIES):
                reservation = _bound(host, random.randint(_LOWEST, highest))
                if reservation is not None:
                    return cls(reservation, fixed=False)
        reservation = _bound(host, 0)
        if reservation is None:
            raise UnreachableError(f"no TCP port is free on {host}")
        return cls(reservation, fixed=False)

    @classmethod
    def at(cls, number: int, host: str = LOOPBACK, *, fixed: bool = True) -> Self | None:
        """This very port, or None where somebody listens on it or has reserved it.

        Only a fixed port is taken beside the old connections of its last server: another stack
        that has reserved it and does not listen yet looks the same. There nginx finds out when it
        binds; a replica would not (its server shares ports), so it takes another port instead.
        """
        reservation = _bound(host, number)
        if reservation is None and fixed:
            reservation = _bound_beside_old_connections(host, number)
        return None if reservation is None else cls(reservation, fixed=fixed)

    @property
    def reachable_host(self) -> str:
        """The address to call it by, also where it is a port of every address."""
        return LOOPBACK if self.host == ANY_ADDRESS else self.host

    def is_listened_on_by(self, pid: int) -> bool:
        """Whether this very process listens there, and not a stranger who took the port."""
        try:
            sockets = psutil.Process(pid).net_connections("tcp")
        except psutil.Error:
            return False
        return any(s.status == psutil.CONN_LISTEN and s.laddr.port == self.number for s in sockets)

    def close(self) -> None:
        """Give the port back."""
        self._reservation.close()


def _bound(host: str, number: int, *, reuse: bool = False) -> socket.socket | None:
    reservation = socket.socket()
    try:
        reservation.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, int(reuse))
        reservation.bind((host, number))
    except OSError as error:
        reservation.close()
        if error.errno == errno.EADDRINUSE:
            return None
        raise UnreachableError(
            f"cannot listen on {host}:{number} ({error.strerror}); choose another --host or --port"
        ) from None
    return reservation


def _bound_beside_old_connections(host: str, number: int) -> socket.socket | None:
    """A port whose last server has stopped is in TIME_WAIT for a minute: nobody answers on it."""
    reservation = _bound(host, number, reuse=True)
    if reservation is None:
        return None
    with socket.socket() as caller:
        caller.settimeout(1)
        if caller.connect_ex((LOOPBACK if host == ANY_ADDRESS else host, number)) == 0:
            reservation.close()
            return None
    return reservation


def _first_outgoing_port() -> int:
    try:
        return int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_bytes().split()[0])
    except (OSError, ValueError, IndexError):
        return 0


_SOCKET_BYTES_MAX = 107  # of its path: what `sockaddr_un` has room for, less the zero at the end
_SOCKET_MODE = 0o600


class Socket:
    """A Unix socket in a folder of this user's own, at a path that is short enough for one."""

    number = None  # it has none

    def __init__(self, path: Path) -> None:
        self.path = path
        self._guest_of: Path | None = None  # a folder that was made for it alone

    def __repr__(self) -> str:
        return f"Socket({self.path})"

    @classmethod
    def within(cls, directory: Path, name: str) -> Self:
        """`name` in `directory`, which is made where it is missing.

        Where that path is too long, or the folder's file system has no sockets, it is in a folder
        made for it below the run-time directory. Raises UnreachableError with the cure.
        """
        with suppress(OSError):
            private_folder(directory)
            if _takes_sockets(directory / name):
                return cls(directory / name)
        for folder in _short_folders(directory):
            with suppress(OSError):
                if _is_own(folder) and _takes_sockets(folder / name):
                    found = cls(folder / name)
                    found._guest_of = folder
                    return found
        raise UnreachableError(
            f"no Unix socket can be made for {directory / name}; choose a --state-dir with a "
            "shorter path, on a file system that has sockets"
        )

    def is_listened_on_by(self, pid: int) -> bool:
        """Whether this very process listens there."""
        try:
            sockets = psutil.Process(pid).net_connections("unix")
        except psutil.Error:
            return False
        return any(str(s.laddr) == str(self.path) for s in sockets)

    def tighten(self) -> None:
        """Let this user alone connect, where a server has made the socket for everybody."""
        with suppress(OSError):
            self.path.chmod(_SOCKET_MODE)

    def close(self) -> None:
        """Take the socket away, and the folder that was made for it."""
        with suppress(OSError):
            self.path.unlink(missing_ok=True)
            if self._guest_of:
                self._guest_of.rmdir()


def _takes_sockets(path: Path) -> bool:
    """Whether a server can listen there; what a dead one has left is removed."""
    if len(os.fsencode(path)) > _SOCKET_BYTES_MAX:
        return False
    path.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX) as trial:
        trial.bind(str(path))
    path.unlink()
    return True


def _short_folders(directory: Path) -> Iterator[Path]:
    """Folders for the sockets of `directory` alone, the same ones each time."""
    digest = hashlib.sha256(os.fsencode(directory)).hexdigest()[:12]
    run_time = os.environ.get("XDG_RUNTIME_DIR")
    for base in (*([run_time] if run_time else []), tempfile.gettempdir(), "/tmp"):  # noqa: S108 - a folder of our own in it
        yield Path(base, f"flashsale-{os.geteuid()}-{digest}")


def _is_own(folder: Path) -> bool:
    """Make it where it is missing; whether it is a folder of this user's, for him alone."""
    with suppress(FileExistsError):
        folder.mkdir(0o700)
    found = folder.lstat()
    return (
        stat.S_ISDIR(found.st_mode)
        and found.st_uid == os.geteuid()
        and not found.st_mode & (stat.S_IRWXG | stat.S_IRWXO)
    )
