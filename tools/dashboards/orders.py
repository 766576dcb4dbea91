"""Orders: from acceptance to row."""

from tools.dashboards.board import Board, Panel, Query, chosen, mean, quantile, rate

_LATENCY = "flashsale_worker_persist_latency_seconds"

BOARD = Board(
    uid="flashsale-orders",
    title="Orders",
    meaning="From acceptance to row: queue, workers, locks.",
    instances_of="worker",
    rows=[
        (
            "Queue",
            [
                Panel(
                    "Orders that are no rows yet",
                    "Lag: given to no worker. Pending: given, and not acknowledged.",
                    "short",
                    [
                        Query("max(flashsale_stream_lag_entries)", "lag"),
                        Query("max(flashsale_stream_pending_entries)", "pending"),
                    ],
                    is_stacked=True,
                ),
                Panel(
                    "Age of the oldest",
                    "Of the orders that are no rows yet.",
                    "s",
                    [Query("max(flashsale_stream_oldest_age_seconds)", "oldest")],
                    limits=[10, 60],
                ),
                Panel(
                    "Acceptance to row",
                    "By the ledger's clock at the one end and the worker's at the other.",
                    "s",
                    [
                        Query(quantile(share, _LATENCY), name)
                        for share, name in ((0.5, "p50"), (0.99, "p99"))
                    ],
                    limits=[0.2],
                ),
                Panel(
                    "Dead letters",
                    "Accepted orders that can never become rows.",
                    "short",
                    [Query("max(flashsale_stream_dead_entries)", "dead")],
                    limits=[1],
                ),
            ],
        ),
        (
            "Books",
            [
                Panel(
                    "Permit",
                    "1 while the ledger has one. Without it nothing is sold: "
                    "docs/runbook.md#salesclosed.",
                    "bool_yes_no",
                    [Query("min(flashsale_books_permitted)", "permitted")],
                    limits=[1],
                    low_is_bad=True,
                ),
                Panel(
                    "Ledger behind MySQL",
                    "1 for what it knows less of, or another: epoch, stream, counter of ids.",
                    "short",
                    [Query("max by (what) (flashsale_books_behind)", "{{what}}")],
                    limits=[1],
                ),
                Panel(
                    "Claims refused for it",
                    "permit: the ledger has none. books: the keys of one sale disagree. Certainly "
                    "not done.",
                    "reqps",
                    [
                        Query(
                            "sum by (lacks) (rate(flashsale_claims_behind_total"
                            "[$__rate_interval]))",
                            "lacks {{lacks}}",
                        )
                    ],
                    limits=[1],
                ),
                Panel(
                    "Sales whose books are wrong",
                    "Vanished: no terms or no stock in the ledger. Torn: their keys disagree. Odd: "
                    "keys of another type. Uneven: units and rows in MySQL do not add up.",
                    "short",
                    [
                        Query("max(flashsale_books_lost_sales)", "vanished"),
                        Query("max(flashsale_books_torn_sales)", "torn"),
                        Query("max(flashsale_books_mistyped_keys)", "odd keys"),
                        Query("max(flashsale_books_uneven_sales)", "uneven"),
                    ],
                    limits=[1],
                ),
                Panel(
                    "Orders in one store alone",
                    "Trimmed unread: accepted, neither rows nor on their way. Forgotten: rows that "
                    "the ledger does not hold.",
                    "short",
                    [
                        Query("max(flashsale_books_missing_orders)", "trimmed unread"),
                        Query("max(flashsale_books_forgotten_orders)", "forgotten"),
                    ],
                    limits=[1],
                ),
                Panel(
                    "Lost and requeued",
                    "Lost: gone from the ledger before they were rows. Requeued: written to the "
                    "stream again from their receipts.",
                    "short",
                    [
                        Query('sum(flashsale_worker_orders_total{result="lost"})', "lost"),
                        Query("sum(flashsale_books_requeued_orders_total)", "requeued"),
                    ],
                    limits=[1],
                ),
                Panel(
                    "Closed and begun again",
                    "Times that a worker closed the sales, and that it found its group gone.",
                    "short",
                    [
                        Query("sum(flashsale_books_closings_total)", "closings"),
                        Query("sum(flashsale_worker_regroupings_total)", "groups made again"),
                    ],
                    limits=[1],
                ),
                Panel(
                    "Looks",
                    "Comparisons of ledger and MySQL, and those that a store did not answer.",
                    "ops",
                    [
                        Query(rate("flashsale_books_looks_total", by="instance"), "{{instance}}"),
                        Query(
                            rate("flashsale_books_failures_total", by="instance"),
                            "{{instance}} failed",
                        ),
                    ],
                ),
            ],
        ),
        (
            "Workers",
            [
                Panel(
                    "Orders by result",
                    "Repeated: were rows already. Postponed: will be tried again.",
                    "ops",
                    [Query(rate("flashsale_worker_orders_total", by="result"), "{{result}}")],
                    is_stacked=True,
                ),
                Panel(
                    "Batches",
                    "Transactions a second.",
                    "ops",
                    [
                        Query(
                            rate("flashsale_worker_batch_orders_count", by="instance"),
                            "{{instance}}",
                        )
                    ],
                ),
                Panel(
                    "Orders a batch",
                    "On average; 500 at most.",
                    "short",
                    [Query(mean("flashsale_worker_batch_orders", "instance"), "{{instance}}")],
                ),
                Panel(
                    "Time of a batch",
                    "Its transaction in MySQL, and what sorting out duplicates took.",
                    "s",
                    [
                        Query(quantile(share, "flashsale_worker_batch_duration_seconds"), name)
                        for share, name in ((0.5, "p50"), (0.99, "p99"))
                    ],
                ),
                Panel(
                    "Retries",
                    "Orders that wait for another try, and batches and reads that a store refused.",
                    "short",
                    [
                        Query(
                            chosen("flashsale_worker_postponed_orders"), "{{instance}} postponed"
                        ),
                        Query(
                            rate("flashsale_worker_failures_total", by="instance"),
                            "{{instance}} failures/s",
                        ),
                    ],
                    limits=[1],
                ),
                Panel(
                    "Users' locks",
                    "Taken, held by another worker, lost before they were given back.",
                    "ops",
                    [
                        Query(rate(f"flashsale_locks_{what}_total", 'locks="order"'), what)
                        for what in ("acquired", "refused", "lost")
                    ],
                ),
                Panel(
                    "Workers that answer",
                    "1 where Prometheus got its metrics.",
                    "none",
                    [Query('up{job="worker",instance=~"$instance"}', "{{instance}}")],
                    limits=[1],
                    low_is_bad=True,
                ),
                Panel(
                    "Swept",
                    "Unpaid orders cancelled, and units given back to the ledger.",
                    "ops",
                    [Query(rate("flashsale_sweeper_orders_total", by="result"), "{{result}}")],
                ),
            ],
        ),
    ],
)
