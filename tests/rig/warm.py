"""A process that has loaded all of flashsale, and forks one that runs a command when it is asked.

Nine tenths of a short command's time is the loading of its modules. What is forked is a process
like any other, with its own folder, environment, streams and limits; only its modules are there,
and are left as they are when it ends: to take them apart would be the greater part of the rest.

    python warm.py DESCRIPTOR

A command comes over that socket, with its three streams and one more socket: there go its process
id and, when it has ended, its exit code. All ends when nobody holds the other end of the first; a
command that is `tethered` ends with it.
"""

import atexit
import builtins
import gc
import importlib
import io
import json
import os
import pkgutil
import resource
import socket
import sys
import warnings
from typing import Any

import flashsale
from flashsale.cli import main
from flashsale.stack.process import tether

REQUEST_BYTES_MAX = 1 << 18
_codes = list[int]()


@atexit.register
def _leave() -> None:
    """End with the command's code, after all that is registered later than this."""
    if _codes:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(_codes[0])


def load() -> None:
    """Import every module, so that nothing is left to be loaded after a fork."""
    for module in pkgutil.walk_packages(flashsale.__path__, "flashsale."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    gc.collect()
    gc.freeze()


def serve(asked: socket.socket) -> None:
    """Fork command by command. Returns in a child, which is to run the one that it has become."""
    minders = set[int]()
    bind = tether()
    while True:
        data, descriptors, _, _ = socket.recv_fds(asked, REQUEST_BYTES_MAX, 4)
        if not data:
            sys.exit()
        minders -= {pid for pid in minders if os.waitpid(pid, os.WNOHANG)[0]}
        if minder := os.fork():
            minders.add(minder)
        else:
            asked.close()
            *streams, answers = descriptors
            command = json.loads(data)
            if command["tethered"]:
                bind()
                bind = tether()
            if pid := os.fork():
                _mind(pid, streams, answers)
            os.close(answers)
            _become(command, streams)
            if command["tethered"]:
                bind()
            return
        for descriptor in descriptors:
            os.close(descriptor)


def _mind(pid: int, streams: list[int], answers: int) -> None:
    for stream in streams:
        os.close(stream)
    os.write(answers, b"%d" % pid)
    os.write(answers, b"%d" % os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    os._exit(0)


def _become(command: dict[str, Any], streams: list[int]) -> None:
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.chdir(command["folder"])
    os.environ.clear()
    os.environ.update(command["environment"])
    os.umask(command["umask"])
    for limit, bounds in command["limits"]:
        resource.setrlimit(limit, tuple(bounds))
    sys.argv = ["flashsale", *command["arguments"]]
    sys.dont_write_bytecode = "PYTHONDONTWRITEBYTECODE" in command["environment"]
    if "PYTHONUNBUFFERED" in command["environment"]:
        sys.stdout.reconfigure(line_buffering=True)
    for category in command["warnings"]:
        warnings.simplefilter("always", getattr(builtins, category))
    encoding, _, errors = command["environment"].get("PYTHONIOENCODING", "").partition(":")
    if encoding:  # what Python does where it starts
        sys.stdout = _stream(1, encoding, errors or "strict")
        sys.stderr = _stream(2, encoding, "backslashreplace")


def _stream(descriptor: int, encoding: str, errors: str) -> io.TextIOWrapper:
    taken = io.BufferedWriter(io.FileIO(descriptor, "w", closefd=False))
    return io.TextIOWrapper(taken, encoding, errors)


if __name__ == "__main__":
    load()
    serve(socket.socket(fileno=int(sys.argv[1])))
    try:
        main()
    except SystemExit as end:
        if isinstance(end.code, int):
            _codes.append(end.code)
        raise
