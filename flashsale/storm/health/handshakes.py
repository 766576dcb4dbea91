"""What handshakes tell by their times: a full listen queue drops them, for another try. Pure.

A SYN without an answer is sent again after a second, then after ever longer (RFC 6298: 1, 3, 7 s
after the first), or, as Linux does since 6.5, first every second (tcp_syn_linear_timeouts). So
handshakes that were dropped take whole seconds, and a little: a cluster behind each.
"""

from flashsale.storm.figures.histogram import Histogram

RETRIES_S = (1, 2, 3, 4, 5, 7, 11, 15, 31)
CLUSTER_US = 250_000
"""How long after a retry its answer counts as one: a round trip, and the loop's own lag."""


def retried(connect: Histogram) -> dict[int, int]:
    """Seconds of a retry → the connections that stood just after it; empty where none did."""
    found = {s: connect.between(s * 1_000_000, s * 1_000_000 + CLUSTER_US) for s in RETRIES_S}
    return {seconds: count for seconds, count in found.items() if count}


def listen_queue_hint(connect: Histogram) -> str | None:
    """Trouble with the target's listen queue, and its cure; None where there is none."""
    clusters = retried(connect)
    if not clusters:
        return None
    times = ", ".join(f"{n:,} took about {seconds} s" for seconds, n in clusters.items())
    return (
        f"listen queue: of {connect.count:,} connections {times}, as where a SYN was dropped "
        "and sent again; raise the target's listen backlog and net.core.somaxconn"
    )
