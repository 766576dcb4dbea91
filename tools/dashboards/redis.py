"""Both Redis: what they are asked, what it costs them, how full they are."""

from tools.dashboards.board import Board, Panel, Query, chosen, rate

_SPENT = rate("redis_commands_duration_seconds_total", by="instance, cmd")

BOARD = Board(
    uid="flashsale-redis",
    title="Redis",
    meaning="The ledger, which must lose nothing, and the cache, which may lose everything.",
    instances_of="redis",
    rows=[
        (
            "Work",
            [
                Panel(
                    "Commands",
                    "A second; one of a claim's batch is one.",
                    "ops",
                    [Query(rate("redis_commands_processed_total", by="instance"), "{{instance}}")],
                ),
                Panel(
                    "CPU",
                    "Of a core. A Redis runs its commands on one.",
                    "percentunit",
                    [
                        Query(
                            f"{rate('redis_cpu_user_seconds_total', by='instance')} + "
                            f"{rate('redis_cpu_sys_seconds_total', by='instance')}",
                            "{{instance}}",
                        )
                    ],
                    limits=[0.8, 1.0],
                ),
                Panel(
                    "Busiest commands",
                    "Seconds of execution a second, fsync not included.",
                    "percentunit",
                    [Query(f"topk(8, {_SPENT})", "{{instance}} {{cmd}}")],
                    is_stacked=True,
                ),
                Panel(
                    "Slow log",
                    "Commands in it: each held everybody up for 10 ms or more.",
                    "short",
                    [Query(chosen("redis_slowlog_length"), "{{instance}}")],
                ),
            ],
        ),
        (
            "Memory",
            [
                Panel(
                    "Memory",
                    "Used, and the most it may.",
                    "bytes",
                    [
                        Query(chosen("redis_memory_used_bytes"), "{{instance}}"),
                        Query(chosen("redis_memory_max_bytes"), "{{instance}} most"),
                    ],
                ),
                Panel(
                    "Keys",
                    "In the one database.",
                    "short",
                    [Query(f"sum by (instance) ({chosen('redis_db_keys')})", "{{instance}}")],
                ),
                Panel(
                    "Keys that went",
                    "Evicted for want of memory (never the ledger's) and expired.",
                    "ops",
                    [
                        Query(
                            rate("redis_evicted_keys_total", by="instance"), "{{instance}} evicted"
                        ),
                        Query(
                            rate("redis_expired_keys_total", by="instance"), "{{instance}} expired"
                        ),
                    ],
                ),
                Panel(
                    "Append-only file",
                    "The ledger's; the cache has none.",
                    "bytes",
                    [Query(chosen("redis_aof_current_size_bytes"), "{{instance}}")],
                ),
            ],
        ),
        (
            "Clients",
            [
                Panel(
                    "Connections",
                    "Open, and of those waiting in a blocking command.",
                    "short",
                    [
                        Query(chosen("redis_connected_clients"), "{{instance}}"),
                        Query(chosen("redis_blocked_clients"), "{{instance}} blocked"),
                    ],
                ),
                Panel(
                    "Network",
                    "Bytes a second.",
                    "Bps",
                    [
                        Query(
                            rate("redis_net_input_bytes_total", by="instance"), "{{instance}} in"
                        ),
                        Query(
                            rate("redis_net_output_bytes_total", by="instance"), "{{instance}} out"
                        ),
                    ],
                ),
                Panel(
                    "Connections refused",
                    "Beyond maxclients.",
                    "cps",
                    [
                        Query(
                            rate("redis_rejected_connections_total", by="instance"), "{{instance}}"
                        )
                    ],
                    limits=[1],
                ),
                Panel(
                    "Servers that answer",
                    "1 where the exporter reached its Redis.",
                    "none",
                    [Query(chosen("redis_up"), "{{instance}}")],
                    limits=[1],
                    low_is_bad=True,
                ),
            ],
        ),
    ],
)
