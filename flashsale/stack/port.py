"""A TCP port that is ours from before a server listens on it until after it has stopped."""

import errno
import random
import socket
from pathlib import Path
from typing import Self

from flashsale.errors import UnreachableError

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
        return int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return 0
