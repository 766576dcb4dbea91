"""What promtool does not ask of rules and alerts: a runbook, two cases each, the same jobs here."""

import re
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
import yaml

from flashsale.observe.prometheus import RULES, ScrapeTarget, configuration
from flashsale.orders.watch import AGAIN_S, LOOKS, TOLD_S
from flashsale.settings import WorkerSettings
from flashsale.stack.settings import StackSettings

ROOT = Path(__file__).resolve().parents[3]
PROMETHEUS = ROOT / "deploy" / "prometheus"
_SELLERS = ("replica", "worker")


def _read(name: str) -> Any:
    return yaml.safe_load((PROMETHEUS / name).read_text())


def _alerts() -> list[dict[str, Any]]:
    return [rule for group in _read("alerts.yml")["groups"] for rule in group["rules"]]


@pytest.mark.parametrize("alert", _alerts(), ids=lambda alert: alert["alert"])
def test_every_alert_says_what_to_do(alert: dict[str, Any]) -> None:
    assert alert["labels"]["severity"] in ("critical", "warning")
    notes = alert["annotations"]
    assert notes["summary"]
    assert notes["description"]
    page, _, anchor = notes["runbook"].partition("#")
    headings = re.findall(r"^## (\w+)$", (ROOT / page).read_text(), re.MULTILINE)
    assert anchor == alert["alert"].lower()
    assert alert["alert"] in headings


def test_the_runbook_knows_no_other_alert() -> None:
    text = (ROOT / "docs" / "runbook.md").read_text()
    headings = re.findall(r"^## (\w+)$", text, re.MULTILINE)
    assert sorted(headings) == sorted(alert["alert"] for alert in _alerts())
    assert set(re.findall(r"\(#(\w+)\)", text)) <= {heading.lower() for heading in headings}


def test_every_alert_has_a_case_where_it_fires_and_one_where_it_does_not() -> None:
    cases: defaultdict[str, set[bool]] = defaultdict(set)
    for case in _read("alerts_test.yml")["tests"]:
        for asked in case["promql_expr_test"]:
            found = re.match(r'ALERTS{alertname="(\w+)",alertstate="firing"}$', asked["expr"])
            if found:
                cases[found[1]].add(bool(asked["exp_samples"]))
    assert cases == {alert["alert"]: {True, False} for alert in _alerts()}


def test_what_alerts_ask_of_rules_is_recorded() -> None:
    recorded = {rule["record"] for group in _read("rules.yml")["groups"] for rule in group["rules"]}
    asked = {name for alert in _alerts() for name in re.findall(r"\w+:\w+:\w+", alert["expr"])}
    assert asked <= recorded


def test_serve_scrapes_the_jobs_of_compose() -> None:
    """Dashboards and alerts know jobs and instances: both ways of deploying have the same."""
    shipped = _read("prometheus.yml")
    told = {
        (job["job_name"], entry["labels"]["instance"])
        for job in shipped["scrape_configs"]
        for entry in job["static_configs"]
    }
    names = {job for job, _ in told}
    targets = [ScrapeTarget(job, instance, "127.0.0.1:1") for job, instance in sorted(told)]
    ours = configuration(targets, 0.5)
    assert {job["job_name"] for job in ours["scrape_configs"]} == names
    assert {instance for job, instance in told if job not in _SELLERS} == {
        "ledger",
        "cache",
        "mysql",
        "nginx",
        "prometheus",
    }
    assert [Path(rule).name for rule in ours["rule_files"]] == list(RULES) == shipped["rule_files"]
    assert ours["global"] == {
        "scrape_interval": "500ms",
        "scrape_timeout": "500ms",
        "evaluation_interval": "500ms",
    }


def test_from_a_fault_to_its_alert_it_takes_ten_seconds_at_most() -> None:
    """A look and two that have to agree with it, a scrape, and the rules; no `for` in between."""
    look_s = WorkerSettings().books_interval_s + (LOOKS - 1) * AGAIN_S
    for scraped in (_read("prometheus.yml"), configuration([], StackSettings().observe_interval_s)):
        told = scraped["global"]
        waits = (told["scrape_interval"], told["evaluation_interval"])
        seconds = [float(w[:-2]) / 1000 if w.endswith("ms") else float(w[:-1]) for w in waits]
        assert look_s + sum(seconds) <= 10
        assert seconds[0] < TOLD_S, "what is over is told for longer than until the next scrape"
    (books,) = [group for group in _read("alerts.yml")["groups"] if group["name"] == "books"]
    waits_for = {rule["alert"] for rule in books["rules"] if "for" in rule}
    assert waits_for == {"SalesClosed", "LagUnknown", "QueueStuck", "BooksUnwatched"}
