"""The cache: how reads come about, what they cost the database, and how full the filters are."""

from tools.dashboards.board import Board, Panel, Query, chosen, quantile, rate

_READS = "flashsale_cache_reads_total"
_NO_LOAD = 'outcome=~"hit|stale|null|bloom"'

BOARD = Board(
    uid="flashsale-cache",
    title="Cache",
    meaning="How reads come about, what they cost the database, and how full the filters are.",
    instances_of="replica",
    rows=[
        (
            "Reads",
            [
                Panel(
                    "Reads by outcome",
                    "As in the x-cache header.",
                    "reqps",
                    [Query(rate(_READS, by="outcome"), "{{outcome}}")],
                    is_stacked=True,
                ),
                Panel(
                    "Reads by kind and strategy",
                    "What is read, and how.",
                    "reqps",
                    [Query(rate(_READS, by="kind, strategy"), "{{kind}} ({{strategy}})")],
                    is_stacked=True,
                ),
                Panel(
                    "Answered without waiting for a load",
                    "Share of hits, stale answers, remembered absences and the filters' refusals.",
                    "percentunit",
                    [
                        Query(
                            f"{rate(_READS, _NO_LOAD, 'strategy')} / {rate(_READS, by='strategy')}",
                            "{{strategy}}",
                        )
                    ],
                    limits=[0.95],
                    low_is_bad=True,
                ),
                Panel(
                    "Refused by a filter",
                    "Reads of ids that do not exist.",
                    "reqps",
                    [Query(rate(_READS, 'outcome="bloom"', "kind"), "{{kind}}")],
                ),
            ],
        ),
        (
            "Loads",
            [
                Panel(
                    "Loads from the database",
                    "By kind and strategy.",
                    "ops",
                    [Query(rate("flashsale_cache_loads_total", by="kind"), "{{kind}}")],
                ),
                Panel(
                    "Time of a load",
                    "Over all kinds.",
                    "s",
                    [
                        Query(quantile(share, "flashsale_cache_load_duration_seconds"), name)
                        for share, name in ((0.5, "p50"), (0.99, "p99"))
                    ],
                    limits=[1],
                ),
                Panel(
                    "Loads that failed",
                    "Loads, rebuilds behind a stale answer, and loads beyond the limit.",
                    "ops",
                    [
                        Query(rate("flashsale_cache_load_failures_total"), "loads"),
                        Query(rate("flashsale_cache_rebuild_failures_total"), "rebuilds"),
                        Query(rate("flashsale_cache_loads_refused_total"), "beyond the limit"),
                    ],
                    limits=[1],
                ),
                Panel(
                    "Fills",
                    "Loads that were put into the cache, and those that came too late to be.",
                    "ops",
                    [Query(rate("flashsale_cache_fills_total", by="result"), "{{result}}")],
                ),
                Panel(
                    "Sets of likes, follows and feeds",
                    "There, waited for, or read from MySQL.",
                    "ops",
                    [
                        Query(
                            rate("flashsale_cache_index_reads_total", by="index, outcome"),
                            "{{index}} {{outcome}}",
                        )
                    ],
                ),
                Panel(
                    "Loads under way",
                    "Running, and waiting for their turn.",
                    "short",
                    [
                        Query(f"sum({chosen('flashsale_cache_loads_running')})", "running"),
                        Query(f"sum({chosen('flashsale_cache_loads_waiting')})", "waiting"),
                    ],
                ),
                Panel(
                    "Cache given up",
                    "1 while a replica's reads do not ask the cache; deletes that it is owed.",
                    "short",
                    [
                        Query(chosen("flashsale_cache_breaker_open"), "{{instance}}"),
                        Query(f"sum({chosen('flashsale_cache_owed_deletes')})", "deletes owed"),
                    ],
                    limits=[1],
                ),
            ],
        ),
        (
            "Bloom filters",
            [
                Panel(
                    "Bits set",
                    "Half of them at full capacity.",
                    "percentunit",
                    [Query("max by (filter) (flashsale_bloom_fill_ratio)", "{{filter}}")],
                    limits=[0.5],
                    width=8,
                ),
                Panel(
                    "Unknown ids that pass",
                    "Share, from the bits set.",
                    "percentunit",
                    [Query("max by (filter) (flashsale_bloom_false_positive_ratio)", "{{filter}}")],
                    limits=[0.01],
                    width=8,
                ),
                Panel(
                    "Ids",
                    "In each filter, and what it was made for.",
                    "short",
                    [
                        Query("max by (filter) (flashsale_bloom_estimated_ids)", "{{filter}}"),
                        Query("max by (filter) (flashsale_bloom_capacity_ids)", "{{filter}} most"),
                    ],
                    width=8,
                ),
            ],
        ),
    ],
)
