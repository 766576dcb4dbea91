"""faults.json, and what a report draws of it."""

from pathlib import Path

from flashsale.report.charts.chart import with_bands
from flashsale.run.folder import RunFolder
from flashsale.run.parts import FaultRecord, read_faults, write_faults

MADE = FaultRecord(
    what="kill", whom="ledger", told="it", planned_ms=1000, done_ms=1001.5, healed_ms=2500
)
MISSED = FaultRecord(what="stop", whom="c1", told="it", planned_ms=9000, trouble="too late")


def test_what_was_written_is_read(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    assert read_faults(folder) == []
    write_faults(folder, [MADE, MISSED])
    assert read_faults(folder) == [MADE, MISSED]
    folder.faults.write_text('{"schema": 2, "faults": []}')
    assert read_faults(folder) == []


def test_only_what_was_made_and_healed_was_made() -> None:
    assert MADE.was_made
    assert not MISSED.was_made
    assert not MADE.model_copy(update={"healed_ms": None}).was_made


def test_a_band_goes_from_making_to_healing_beside_what_is_there() -> None:
    layout = {"xaxis": {}, "shapes": [{"type": "line"}], "annotations": [{"text": "sold out"}]}
    drawn = with_bands(layout, [MADE, MISSED])
    assert [(it.get("x0"), it.get("x1")) for it in drawn["shapes"]] == [(None, None), (1.0015, 2.5)]
    assert [it["text"] for it in drawn["annotations"]] == ["sold out", "kill ledger"]
    assert len(layout["shapes"]) == 1, "another chart's layout stays as it is"


def test_a_run_without_faults_has_no_bands() -> None:
    layout = {"xaxis": {}}
    assert with_bands(layout, []) is layout
