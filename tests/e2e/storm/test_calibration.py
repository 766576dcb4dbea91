"""Calibration on a real null responder: it tells what can be sent, is quick, and leaves nothing."""

import os
import subprocess
import sys
from array import array

import psutil
import pytest

from flashsale.storm.attack import calibration
from flashsale.storm.attack.calibration import calibrate
from flashsale.storm.figures.generator import Calibration, peak_per_s, room_of
from flashsale.storm.plan.plan import Plan


def test_it_measures_the_engine_and_leaves_no_process_behind() -> None:
    before = set(psutil.Process().children(recursive=True))
    found = calibrate()
    assert found is not None
    assert 0 < found.requests <= calibration.REQUESTS
    assert 1 < found.us_per_request < 10_000
    assert found.took_ms < 1000 * calibration.START_TIMEOUT_S + 3 * calibration.FIRE_MS
    assert set(psutil.Process().children(recursive=True)) == before


def test_where_nothing_answers_there_is_no_calibration(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration.null_responder, "__file__", "/nowhere.py")
    assert calibrate() is None


def test_a_responder_does_not_outlive_who_started_it() -> None:
    command = [sys.executable, "-I", calibration.null_responder.__file__]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as responder:
        assert responder.stdin is not None
        assert responder.stdout is not None
        assert int(responder.stdout.readline()) > 0
        responder.stdin.close()
        assert responder.wait(5) == 0


def test_the_peak_is_the_busiest_tenth_of_a_second() -> None:
    assert peak_per_s([]) == 0
    assert peak_per_s([5]) == 10
    even = array("q", range(0, 1_000_000, 1000))
    assert peak_per_s(even) == 1000
    assert peak_per_s(even + array("q", range(1_000_000, 1_500_000, 100))) == 10_000


def plan(*at_us: int, lanes: int = 0) -> Plan:
    instants = array("q", at_us)
    return Plan(
        asks=array("b", [1] * len(instants)),
        users=array("q"),
        things=array("q", [1] * len(instants)),
        connections=array("q", range(lanes)),
        at_us=instants,
        connection_count=lanes or 8,
    )


def test_headroom_is_what_could_be_sent_for_what_is_asked_at_the_peak(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    found = Calibration(3000, us_per_request=50.0, took_ms=200)
    open_plan = plan(*range(0, 1_000_000, 100))
    assert room_of(found, 1, open_plan, open_run=True).headroom == 2.0
    assert room_of(found, 8, open_plan, open_run=True).headroom == 4.0  # no more than two cores
    assert room_of(found, 1, open_plan, open_run=True).burst_ms is None


def test_a_stampede_has_no_rate_but_a_time_that_at_once_takes() -> None:
    found = Calibration(3000, us_per_request=50.0, took_ms=200)
    room = room_of(found, 1, plan(*[0] * 2000, lanes=2000), open_run=False)
    assert (room.headroom, room.peak_per_s) == (None, None)
    assert room.burst_ms == pytest.approx(100)
