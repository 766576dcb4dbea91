"""The sale: is every promise kept, and how fast does it sell?"""

from tools.dashboards.board import Board, Panel, Query, chosen, mean, quantile, rate

_CLAIM = 'method="POST",route="/voucher-order/seckill/{voucherId}"'
_DURATION = "flashsale_http_request_duration_seconds"


def _number(title: str, meaning: str, expr: str, unit: str = "none", **more: object) -> Panel:
    return Panel(title, meaning, unit, [Query(expr, title)], is_number=True, width=4, **more)  # type: ignore[arg-type]


BOARD = Board(
    uid="flashsale-sale",
    title="Sale",
    meaning="Is every promise kept, and how fast does it sell?",
    instances_of="replica",
    rows=[
        (
            "Promises",
            [
                _number(
                    "Oversold",
                    "Units held by users beyond those on offer, over all sales. Anything but 0: "
                    "docs/runbook.md#oversellsuspected",
                    "max(flashsale_sale_oversold_units)",
                    limits=[1],
                ),
                _number(
                    "Unaccounted",
                    "Units that are neither in stock nor held, or are both.",
                    "max(flashsale_sale_unaccounted_units)",
                    limits=[1],
                ),
                _number(
                    "Dead letters",
                    "Accepted orders that can never become rows.",
                    "max(flashsale_stream_dead_entries)",
                    limits=[1],
                ),
                _number(
                    "Ledger's policy",
                    "1 where every setting is as acknowledged orders need it.",
                    "min(flashsale_ledger_policy_holds)",
                    unit="bool_yes_no",
                    limits=[1],
                    low_is_bad=True,
                ),
                _number(
                    "Replicas up",
                    "Share of the replicas that answer Prometheus.",
                    'avg(up{job="replica"})',
                    unit="percentunit",
                    limits=[1],
                    low_is_bad=True,
                ),
                _number(
                    "Alerts firing",
                    "See docs/runbook.md.",
                    'count(ALERTS{alertstate="firing"}) or vector(0)',
                    limits=[1],
                ),
            ],
        ),
        (
            "Claims",
            [
                Panel(
                    "Claims by outcome",
                    "Answers a second, by x-outcome.",
                    "reqps",
                    [Query(rate("flashsale_claims_total", by="outcome"), "{{outcome}}")],
                    is_stacked=True,
                ),
                Panel(
                    "Time to an answer",
                    "From a claim's head to its answer, in the replica.",
                    "s",
                    [
                        Query(quantile(share, _DURATION, _CLAIM), name)
                        for share, name in ((0.5, "p50"), (0.99, "p99"), (0.999, "p99.9"))
                    ],
                    limits=[0.5],
                ),
                Panel(
                    "Claims by replica",
                    "nginx gives the next one to whoever has the fewest open.",
                    "reqps",
                    [Query(rate("flashsale_claims_total", by="instance"), "{{instance}}")],
                ),
                Panel(
                    "Claims without a clear answer",
                    "Shed: certainly not done. Unknown: its user has to ask. Replays settle "
                    "batches whose answer was lost.",
                    "reqps",
                    [
                        Query(
                            rate("flashsale_claims_total", 'outcome=~"shed|unknown"', "outcome"),
                            "{{outcome}}",
                        ),
                        Query(rate("flashsale_claim_replays_total"), "replayed batches"),
                    ],
                    limits=[1],
                ),
            ],
        ),
        (
            "Units",
            [
                Panel(
                    "Units of all sales",
                    "Offered, left and held in the ledger; given out by MySQL.",
                    "short",
                    [
                        Query("max by (state) (flashsale_sale_units)", "{{state}}"),
                        Query("max(flashsale_sale_persisted_units)", "rows"),
                    ],
                ),
                Panel(
                    "Sold and not yet rows",
                    "Units held in the ledger less those that MySQL has given out.",
                    "short",
                    [
                        Query(
                            'max(flashsale_sale_units{state="held"}) '
                            "- max(flashsale_sale_persisted_units)",
                            "orders on their way",
                        )
                    ],
                ),
            ],
        ),
        (
            "Gates",
            [
                Panel(
                    "Items a call",
                    "How many requests leave together, on average.",
                    "short",
                    [Query(mean("flashsale_gate_batch_items", "gate"), "{{gate}}")],
                ),
                Panel(
                    "Time of a call, p99",
                    "From a batch's call to its answer: Redis, and the fsync behind a sale.",
                    "s",
                    [
                        Query(
                            quantile(0.99, "flashsale_gate_call_duration_seconds", by="gate"),
                            "{{gate}}",
                        )
                    ],
                ),
                Panel(
                    "Waiting and in flight",
                    "Items queued before a gate, and calls that were not answered yet.",
                    "short",
                    [
                        Query(
                            f"sum by (gate) ({chosen('flashsale_gate_waiting_items')})",
                            "{{gate}} waiting",
                        ),
                        Query(
                            f"sum by (gate) ({chosen('flashsale_gate_calls_in_flight')})",
                            "{{gate}} calls",
                        ),
                    ],
                ),
                Panel(
                    "Refused at a full gate",
                    "Items that found the queue full: shed, and certainly not done.",
                    "ops",
                    [Query(rate("flashsale_gate_refused_items_total", by="gate"), "{{gate}}")],
                    limits=[1],
                ),
            ],
        ),
    ],
)
