"""MySQL or MariaDB: figures that both have, by every user's leave to read them."""

from tools.dashboards.board import Board, Panel, Query, chosen, rate

_COMMANDS = 'command=~"select|insert|update|delete|commit|rollback"'
_READ = "mysql_global_status_innodb_buffer_pool_reads"
_ASKED = "mysql_global_status_innodb_buffer_pool_read_requests"

BOARD = Board(
    uid="flashsale-mysql",
    title="MySQL",
    meaning="Figures that MySQL 8 and MariaDB both have.",
    instances_of="mysql",
    rows=[
        (
            "Work",
            [
                Panel(
                    "Statements",
                    "A second, by kind.",
                    "ops",
                    [
                        Query(
                            rate("mysql_global_status_commands_total", _COMMANDS, "command"),
                            "{{command}}",
                        )
                    ],
                    is_stacked=True,
                ),
                Panel(
                    "Queries",
                    "Statements and what they ran inside.",
                    "ops",
                    [Query(rate("mysql_global_status_queries"), "queries")],
                ),
                Panel(
                    "Slow queries",
                    "Longer than long_query_time.",
                    "ops",
                    [Query(rate("mysql_global_status_slow_queries"), "slow")],
                    limits=[1],
                ),
                Panel(
                    "Rows",
                    "Handler calls a second: what statements do to tables.",
                    "ops",
                    [
                        Query(
                            rate(
                                "mysql_global_status_handlers_total",
                                'handler=~"write|update|delete|read_key|read_next|read_rnd_next"',
                                "handler",
                            ),
                            "{{handler}}",
                        )
                    ],
                ),
            ],
        ),
        (
            "InnoDB",
            [
                Panel(
                    "Fsyncs",
                    "Every COMMIT of orders waits for one.",
                    "ops",
                    [Query(rate("mysql_global_status_innodb_data_fsyncs"), "fsyncs")],
                ),
                Panel(
                    "Redo log written",
                    "Bytes a second.",
                    "Bps",
                    [Query(rate("mysql_global_status_innodb_os_log_written"), "redo log")],
                ),
                Panel(
                    "Row locks",
                    "Waits a second, and transactions that wait now.",
                    "short",
                    [
                        Query(rate("mysql_global_status_innodb_row_lock_waits"), "waits/s"),
                        Query(
                            chosen("mysql_global_status_innodb_row_lock_current_waits"), "waiting"
                        ),
                    ],
                    limits=[10],
                ),
                Panel(
                    "Page cache",
                    "Share of page reads that found the page in memory.",
                    "percentunit",
                    [Query(f"1 - {rate(_READ)} / {rate(_ASKED)}", "in memory")],
                    limits=[0.95],
                    low_is_bad=True,
                ),
            ],
        ),
        (
            "Clients",
            [
                Panel(
                    "Connections",
                    "Open, at work, and the most there may be.",
                    "short",
                    [
                        Query(chosen("mysql_global_status_threads_connected"), "open"),
                        Query(chosen("mysql_global_status_threads_running"), "at work"),
                        Query(chosen("mysql_global_variables_max_connections"), "most"),
                    ],
                ),
                Panel(
                    "Network",
                    "Bytes a second.",
                    "Bps",
                    [
                        Query(rate("mysql_global_status_bytes_received"), "in"),
                        Query(rate("mysql_global_status_bytes_sent"), "out"),
                    ],
                ),
                Panel(
                    "Connections lost",
                    "Failed to connect, and gone without a goodbye.",
                    "cps",
                    [
                        Query(rate("mysql_global_status_aborted_connects"), "failed"),
                        Query(rate("mysql_global_status_aborted_clients"), "gone"),
                    ],
                ),
                Panel(
                    "Server answers",
                    "1 where the exporter reached it.",
                    "none",
                    [Query(chosen("mysql_up"), "{{instance}}")],
                    limits=[1],
                    low_is_bad=True,
                ),
            ],
        ),
    ],
)
