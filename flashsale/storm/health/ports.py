"""Ephemeral ports: each connection to one target takes one, and there is a range of them."""

from pathlib import Path

from flashsale.errors import UsageError

_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")
SPARE_PORTS = 64
"""The preflight, the resolver, and whatever else this machine has to do there."""


def ensure_ports(connections: int) -> None:
    """See that there are as many ports as `connections` to one target take.

    Raises UsageError with the cure. Where the system does not tell its range, nothing is seen.
    """
    try:
        first, last = map(int, _RANGE.read_text(encoding="ascii").split())
    except (OSError, ValueError):
        return
    ports = last - first + 1
    if connections + SPARE_PORTS > ports:
        raise UsageError(
            f"{connections:,} connections need {connections + SPARE_PORTS:,} local ports and there "
            f'are {ports:,}; widen them (`sysctl -w net.ipv4.ip_local_port_range="1024 65535"`), '
            "storm in shards from several machines, or lower load.connections"
        )
