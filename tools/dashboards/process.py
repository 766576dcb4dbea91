"""The Python processes: replicas and workers as the machine sees them."""

from tools.dashboards.board import Board, Panel, Query, chosen, quantile, rate

_JOBS = 'job=~"replica|worker"'
_IN_USE = 'state="in_use"'
_SCRAPED = f'instance=~"$instance",{_JOBS}'

BOARD = Board(
    uid="flashsale-process",
    title="Python processes",
    meaning="Replicas and workers as the machine sees them, and their connections.",
    instances_of="replica|worker",
    rows=[
        (
            "Processes",
            [
                Panel(
                    "CPU",
                    "Of a core. A replica's event loop has one.",
                    "percentunit",
                    [Query(rate("process_cpu_seconds_total", _JOBS, "instance"), "{{instance}}")],
                    limits=[0.8, 1.0],
                ),
                Panel(
                    "Memory",
                    "Resident.",
                    "bytes",
                    [Query(chosen("process_resident_memory_bytes", _JOBS), "{{instance}}")],
                ),
                Panel(
                    "Event loop's lag",
                    "How late a timer runs: the wait that every request of a replica shares.",
                    "s",
                    [
                        Query(quantile(share, "flashsale_event_loop_lag_seconds"), name)
                        for share, name in ((0.5, "p50"), (0.99, "p99"))
                    ],
                    limits=[0.1, 0.25],
                ),
                Panel(
                    "Descriptors",
                    "Open files and sockets, of those allowed.",
                    "percentunit",
                    [
                        Query(
                            f"{chosen('process_open_fds', _JOBS)} "
                            f"/ {chosen('process_max_fds', _JOBS)}",
                            "{{instance}}",
                        )
                    ],
                    limits=[0.8],
                ),
                Panel(
                    "Garbage collections",
                    "A second, all generations; a replica's hot path needs none.",
                    "ops",
                    [Query(rate("python_gc_collections_total", _JOBS, "instance"), "{{instance}}")],
                ),
                Panel(
                    "Starts",
                    "How often each began anew in the last ten minutes.",
                    "short",
                    [
                        Query(
                            f"changes({chosen('process_start_time_seconds', _JOBS)}[10m])",
                            "{{instance}}",
                        )
                    ],
                    limits=[1],
                ),
            ],
        ),
        (
            "Connections and locks",
            [
                Panel(
                    "MySQL connections in use",
                    "By process and pool.",
                    "short",
                    [
                        Query(
                            chosen("flashsale_mysql_pool_connections", _IN_USE),
                            "{{instance}} {{pool}}",
                        )
                    ],
                    limits=[40, 50],
                ),
                Panel(
                    "Redis connections in use",
                    "By what they are for, over all replicas.",
                    "short",
                    [
                        Query(
                            f"sum by (channel) ({chosen('flashsale_redis_connections', _IN_USE)})",
                            "{{channel}}",
                        )
                    ],
                ),
                Panel(
                    "Redis calls that failed",
                    "Lost: sent, and no answer. Unreachable: no connection.",
                    "ops",
                    [
                        Query(
                            rate("flashsale_redis_failures_total", by="channel, failure"),
                            "{{channel}} {{failure}}",
                        )
                    ],
                    limits=[1],
                ),
                Panel(
                    "Locks held",
                    "Users' locks of workers, and the general lock of replicas.",
                    "short",
                    [Query(chosen("flashsale_locks_held"), "{{instance}} {{locks}}")],
                ),
            ],
        ),
        (
            "Scrapes",
            [
                Panel(
                    "Time of a scrape",
                    "What Prometheus waits for, by process.",
                    "s",
                    [
                        Query(
                            f"scrape_duration_seconds{{{_SCRAPED}}}",
                            "{{instance}}",
                        )
                    ],
                    limits=[0.5],
                ),
                Panel(
                    "Samples of a scrape",
                    "Series of each process.",
                    "short",
                    [
                        Query(
                            f"scrape_samples_scraped{{{_SCRAPED}}}",
                            "{{instance}}",
                        )
                    ],
                ),
            ],
        ),
    ],
)
