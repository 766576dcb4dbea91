"""Dashboards: the files are what the code makes, and every panel can be read."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from flashsale.observe import panels
from flashsale.orders.books import Look
from flashsale.orders.metrics import BooksCollector
from flashsale.orders.watch import BooksWatch, Watched
from tools.dashboards.__main__ import BOARDS, FOLDER

FILES = sorted(FOLDER.glob("*.json"))
PROVISIONING = FOLDER.parent / "provisioning"


def _board(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def _panels(board: dict[str, Any]) -> list[dict[str, Any]]:
    return [panel for panel in board["panels"] if panel["type"] != "row"]


@pytest.mark.parametrize("name", BOARDS)
def test_the_file_is_what_the_code_makes(name: str) -> None:
    assert (FOLDER / f"{name}.json").read_text() == BOARDS[name].to_json(), "run `make dashboards`"


def test_no_file_is_anybody_elses() -> None:
    assert {path.stem for path in FILES} == set(BOARDS)
    assert {"sale", "http", "cache", "orders", "redis", "mysql", "process"} == set(BOARDS)


def test_names_and_addresses_are_its_own() -> None:
    boards = [_board(path) for path in FILES]
    assert len({board["uid"] for board in boards}) == len(boards)
    assert len({board["title"] for board in boards}) == len(boards)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_panel_can_be_read(path: Path) -> None:
    board = _board(path)
    ids = [panel["id"] for panel in board["panels"]]
    assert len(set(ids)) == len(ids)
    for panel in _panels(board):
        name = panel["title"]
        defaults = panel["fieldConfig"]["defaults"]
        assert panel["description"].endswith((".", "suspected")), name
        assert defaults["unit"], name
        assert defaults["thresholds"]["steps"][0]["value"] is None, name
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}, name
        assert panel["targets"], name
        for target in panel["targets"]:
            assert target["legendFormat"], name
            assert not re.search(r"rate\([^[]*\[(?!\$__rate_interval)", target["expr"]), name


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_source_and_instance_can_be_chosen(path: Path) -> None:
    board = _board(path)
    kinds = {each["name"]: each["type"] for each in board["templating"]["list"]}
    assert kinds == {"datasource": "datasource", "instance": "query"}
    expressions = " ".join(query.expr for query in panels.queries() if query.dashboard == path.stem)
    assert "$instance" in expressions


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_panels_do_not_overlap(path: Path) -> None:
    taken: set[tuple[int, int]] = set()
    for panel in _board(path)["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        taken |= cells


def test_provisioning_names_the_folder_and_the_prometheus_of_compose() -> None:
    (source,) = yaml.safe_load((PROVISIONING / "datasources" / "prometheus.yml").read_text())[
        "datasources"
    ]
    scraped = yaml.safe_load((FOLDER.parents[1] / "prometheus" / "prometheus.yml").read_text())
    assert source["url"] == "http://prometheus:9090"
    assert source["jsonData"]["timeInterval"] == scraped["global"]["scrape_interval"]
    (provider,) = yaml.safe_load((PROVISIONING / "dashboards" / "flashsale.yml").read_text())[
        "providers"
    ]
    assert provider["options"]["path"] == "/var/lib/grafana/dashboards"


def test_what_alerts_of_the_books_read_has_a_panel() -> None:
    """And so has every other figure of the books that a worker tells."""
    watch = BooksWatch.__new__(BooksWatch)
    watch.total = Watched(last=Look())
    told = {
        sample.name
        for metric in BooksCollector(watch).collect()
        for sample in metric.samples
        if not sample.name.endswith("_created")
    }
    rules = yaml.safe_load((FOLDER.parents[1] / "prometheus" / "alerts.yml").read_text())
    (books,) = [group for group in rules["groups"] if group["name"] == "books"]
    asked = {
        name
        for rule in books["rules"]
        for name in re.findall(r"(?<!:)\bflashsale_\w+", rule["expr"])
    }
    shown = {n for q in panels.queries() for n in re.findall(r"flashsale_\w+", q.expr)}
    assert len(told) == 12
    assert told | asked <= shown | {"flashsale_stream_lag_known"}
