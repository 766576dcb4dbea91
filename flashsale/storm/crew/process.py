"""This side of one process of a crew: its part of the plan, and what it has told."""

import asyncio
import socket
import subprocess
import sys
from typing import Protocol

from flashsale.storm.attack.attack import Mission
from flashsale.storm.crew.messages import Channel, Done

_GOODBYE_S = 2.0


class Listener(Protocol):
    """Who is told what a process tells, and how it ended if it told nothing."""

    def hear(self, process: "Process", message: object) -> None:
        """The process says so."""

    def lost(self, process: "Process", fate: str) -> None:
        """The process is gone, without having said how it did."""


class Process:
    """One process. `over` says that nothing more is to come of it."""

    def __init__(self, listener: Listener, index: int, mission: Mission) -> None:
        self.index, self.plan = index, mission.plan
        self.standing = self.over = self._hung = False
        self.in_flight = 0
        self.done: Done | None = None
        self._listener, self._mission = listener, mission
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: Channel | None = None

    def __repr__(self) -> str:
        return f"<Process {self.index} of {self.plan!r} standing={self.standing} over={self.over}>"

    @property
    def pid(self) -> int | None:
        """Its process, once there is one."""
        return None if self._process is None else self._process.pid

    async def begin(self) -> None:
        """Start the process and give it its mission."""
        end = self._start()
        _, self._channel = await asyncio.get_running_loop().create_unix_connection(
            lambda: Channel(self._hear, self._part), sock=end
        )
        self._channel.tell(self._mission)

    def tell(self, message: object) -> None:
        """Send `message`, unless nobody is there to hear it."""
        if self._channel is not None and not self.over:
            self._channel.tell(message)

    def give_up(self) -> None:
        """End a process that does not end in time; its socket tells the listener."""
        self._hung = True
        self.kill()

    def kill(self) -> None:
        """End the process, whatever it does."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def dismiss(self) -> None:
        """Leave nothing behind: who is done goes by itself, who is not is killed."""
        self.over = True
        if self._channel is not None:
            self._channel.close()
        if self.done is None or self._exit_code() is None:
            self.kill()

    def _start(self) -> socket.socket:
        """Start the process; our end of the socket."""
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "flashsale.storm.crew.child", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                start_new_session=True,  # a Ctrl-C reaches it as a message, not from the terminal
            )
        return ours

    def _hear(self, message: object) -> None:
        if not self.over:
            self._listener.hear(self, message)

    def _part(self) -> None:
        """The other end of the socket is closed."""
        if not self.over:
            self._listener.lost(self, self._fate())

    def _fate(self) -> str:
        code = self._exit_code()
        if self._hung or code is None:
            return "did not end in time"
        return f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"

    def _exit_code(self) -> int | None:
        """Of a process that is about to end; None where it does not."""
        if self._process is None:
            return None
        try:
            return self._process.wait(_GOODBYE_S)
        except subprocess.TimeoutExpired:
            return None
