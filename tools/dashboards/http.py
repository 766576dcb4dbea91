"""HTTP: who asks for what, how it is answered, and what nginx sees of it."""

from tools.dashboards.board import RATE, Board, Panel, Query, chosen, quantile, rate

_REQUESTS = "flashsale_http_requests_total"
_DURATION = "flashsale_http_request_duration_seconds"
_OUTSIDE = 'route!~"/metrics|/healthz|/readyz"'
_ERRORS = f'status=~"5..",{_OUTSIDE}'

BOARD = Board(
    uid="flashsale-http",
    title="HTTP",
    meaning="Who asks for what, how it is answered, and what nginx sees of it.",
    instances_of="replica",
    rows=[
        (
            "Replicas",
            [
                Panel(
                    "Requests by route",
                    "Answers a second.",
                    "reqps",
                    [Query(rate(_REQUESTS, by="method, route"), "{{method}} {{route}}")],
                    is_stacked=True,
                ),
                Panel(
                    "Requests by status",
                    "A refusal of the sale (sold out, paused) is 200; 503 is shed or unknown.",
                    "reqps",
                    [Query(rate(_REQUESTS, _OUTSIDE, "status"), "{{status}}")],
                    is_stacked=True,
                ),
                Panel(
                    "Error ratio",
                    "Share of 5xx in what is asked from outside. The objective is 0.1 %.",
                    "percentunit",
                    [
                        Query(
                            f"({rate(_REQUESTS, _ERRORS)} or vector(0)) "
                            f"/ {rate(_REQUESTS, _OUTSIDE)}",
                            "5xx",
                        )
                    ],
                    limits=[0.001, 0.0144],
                ),
                Panel(
                    "Time to an answer",
                    "Over all routes, in the replica.",
                    "s",
                    [
                        Query(quantile(share, _DURATION, _OUTSIDE), name)
                        for share, name in ((0.5, "p50"), (0.9, "p90"), (0.99, "p99"))
                    ],
                    limits=[0.5],
                ),
                Panel(
                    "Time to an answer by route, p99",
                    "In the replica.",
                    "s",
                    [Query(quantile(0.99, _DURATION, by="method, route"), "{{method}} {{route}}")],
                ),
                Panel(
                    "In flight",
                    "Requests being served.",
                    "short",
                    [Query(chosen("flashsale_http_requests_in_flight"), "{{instance}}")],
                ),
                Panel(
                    "Pictures",
                    "Kept, removed and refused.",
                    "ops",
                    [Query(rate("flashsale_pictures_total", by="outcome"), "{{outcome}}")],
                ),
                Panel(
                    "Requests by replica",
                    "A replica that died shows as a gap here and in the next panel.",
                    "reqps",
                    [Query(rate(_REQUESTS, _OUTSIDE, "instance"), "{{instance}}")],
                ),
                Panel(
                    "Replicas that answer",
                    "1 where Prometheus got its metrics.",
                    "none",
                    [Query('up{job="replica",instance=~"$instance"}', "{{instance}}")],
                    limits=[1],
                    low_is_bad=True,
                ),
            ],
        ),
        (
            "nginx",
            [
                Panel(
                    "Requests that nginx got",
                    "From clients.",
                    "reqps",
                    [Query(f"sum(rate(nginx_http_requests_total[{RATE}]))", "requests")],
                ),
                Panel(
                    "Got, and answered by no replica",
                    "Requests that nginx got less those that replicas answered: what it refused "
                    "itself, what was in flight on a replica that died.",
                    "reqps",
                    [
                        Query(
                            f"clamp_min(sum(rate(nginx_http_requests_total[{RATE}])) - "
                            f'sum(rate({_REQUESTS}{{route!~"/metrics|/readyz"}}[{RATE}])), 0)',
                            "without a replica's answer",
                        )
                    ],
                ),
                Panel(
                    "Connections",
                    "Of clients and to replicas.",
                    "short",
                    [
                        Query(f"nginx_connections_{state}", state)
                        for state in ("active", "reading", "writing", "waiting")
                    ],
                ),
                Panel(
                    "Connections dropped",
                    "Accepted and not handled: nginx ran out of them.",
                    "cps",
                    [
                        Query(
                            f"sum(rate(nginx_connections_accepted[{RATE}])) - "
                            f"sum(rate(nginx_connections_handled[{RATE}]))",
                            "dropped",
                        )
                    ],
                    limits=[1],
                ),
            ],
        ),
    ],
)
