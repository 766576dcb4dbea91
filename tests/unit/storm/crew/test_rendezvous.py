"""What a meeting of shards makes of what they say, and of what time says: without a clock."""

import pytest

from flashsale.model import Outcome
from flashsale.run.attempts import ClockReading
from flashsale.storm.crew.rendezvous import Meeting, MeetingLimits, Report
from flashsale.storm.crew.shard import Shard

S = 1_000_000_000
PLAN = "cafe"
PATIENCE = MeetingLimits(
    gather_ns=60 * S, silence_ns=10 * S, run_ns=600 * S, stop_ns=30 * S, lead_us=2_000_000
)
AT_US = 1_795_428_000_000_000


def meeting(of: int = 3) -> Meeting:
    return Meeting(of, PLAN, PATIENCE, 0)


def come(met: Meeting, number: int, now_s: float = 1) -> str | None:
    of = len(met.participants)
    return met.join(f"t{number}", Shard(number, of), f"host{number}:1", round(now_s * S))


def say(met: Meeting, number: int, now_s: float, **told: object) -> str | None:
    report = Report(f"t{number}", **{"plan_hash": PLAN, "is_ready": True, **told})  # type: ignore[arg-type]
    return met.report(report, round(now_s * S), AT_US)


def all_ready(of: int = 3) -> Meeting:
    met = meeting(of)
    for number in range(1, of + 1):
        assert come(met, number) is None
        assert met.instant_us is None
        assert say(met, number, 2) is None
    return met


def test_the_instant_is_told_when_the_last_one_is_ready_and_stays() -> None:
    met = all_ready()
    assert met.instant_us == AT_US + 2_000_000
    met.report(Report("t1", PLAN, True), 3 * S, AT_US + 1_000_000)
    assert met.instant_us == AT_US + 2_000_000
    assert not met.look(3 * S)


def test_all_is_over_when_each_has_brought_its_record() -> None:
    met = all_ready()
    for number in (1, 2, 3):
        assert not met.look(3 * S)
        met.leave(f"t{number}", None, fired=True)
    assert met.look(3 * S)
    assert met.complaints == []
    assert met.stopping is None


def test_who_is_connected_but_not_ready_holds_the_instant_back() -> None:
    met = meeting(2)
    assert come(met, 1) is come(met, 2) is None
    say(met, 1, 2)
    say(met, 2, 2, is_ready=False)
    assert met.instant_us is None


def test_the_same_ticket_may_come_again_since_an_answer_can_be_lost() -> None:
    met = meeting()
    assert come(met, 1) is None
    assert come(met, 1) is None
    assert met.complaints == []


def test_who_comes_twice_is_refused_and_ends_the_storm() -> None:
    met = meeting()
    come(met, 2)
    refused = met.join("other", Shard(2, 3), "host9:7", 2 * S)
    assert refused == "shard 2/3 came twice: from host2:1, and from host9:7"
    assert met.complaints == [refused]
    assert met.stopping == refused
    assert come(met, 1, 3) == f"the storm was given up: {refused}"


def test_who_comes_again_when_the_part_is_done_is_refused_and_nothing_else() -> None:
    met = all_ready()
    met.leave("t2", None, fired=True)
    assert "came twice" in (met.join("other", Shard(2, 3), "host9:7", 2 * S) or "")
    assert met.complaints == []


def test_a_shard_of_another_division_is_refused() -> None:
    assert meeting().join("t", Shard(1, 4), "h", S) == "found shard 1/4, expected one of 3"


def test_another_plan_is_named_and_lost() -> None:
    met = meeting()
    come(met, 3)
    told = say(met, 3, 2, plan_hash="beef")
    assert told is not None
    assert "has another plan: found beef, expected cafe; give all the same scenario" in told
    assert met.complaints == ["shard 3/3 (host3:1) has another plan: found beef, expected cafe"]
    assert met.participants[2].fate is not None


def test_all_who_never_come_are_named_and_the_others_are_given_up() -> None:
    met = meeting()
    come(met, 2)
    for now_s in range(2, 60, 5):
        say(met, 2, now_s)
        assert not met.look(now_s * S)
    say(met, 2, 59)
    assert not met.look(60 * S)
    assert met.complaints == [
        "shard 1/3 never came, within 60 s",
        "shard 3/3 never came, within 60 s",
    ]
    met.leave("t2", "the storm was given up: shard 1/3 never came", fired=False)
    assert met.look(61 * S)
    assert len(met.complaints) == 2, "who gives up because it was told to is no news"
    assert not any(participant.fired for participant in met.participants)


def test_who_came_and_was_not_ready_in_time_is_named() -> None:
    met = meeting(1)
    come(met, 1, 50)
    say(met, 1, 59, is_ready=False)
    assert met.look(60 * S)
    assert met.complaints == ["shard 1/1 (host1:1) was not ready within 60 s"]


@pytest.mark.parametrize("ready", [False, True])
def test_who_falls_silent_is_lost_before_the_instant_and_after(ready: bool) -> None:
    met = all_ready() if ready else meeting()
    if not ready:
        assert come(met, 2) is None
    for number in (1, 3) if ready else ():
        say(met, number, 11)
    met.look(11.9 * S)  # type: ignore[arg-type]
    assert met.complaints == [] or not ready
    met.look(12 * S)
    assert met.complaints == ["shard 2/3 (host2:1) was not heard of for 10 s"]
    assert met.stopping == met.complaints[0]
    assert met.participants[1].fired is ready, "whether its attempts may have left"
    assert say(met, 2, 13) == "this shard is not known here, or counts as lost"


def test_who_gives_up_is_named_with_its_reason() -> None:
    met = meeting()
    come(met, 1)
    met.leave("t1", "http://shop answers nothing", fired=False)
    assert met.complaints == ["shard 1/3 (host1:1) gave up: http://shop answers nothing"]


def test_a_signal_at_one_stops_all_and_is_no_complaint() -> None:
    met = all_ready()
    say(met, 2, 3, interrupted=True)
    assert met.stopping == "shard 2/3 (host2:1) was interrupted"
    for number in (1, 2, 3):
        met.leave(f"t{number}", None, fired=True)
    assert met.look(4 * S)
    assert met.complaints == []


def test_who_was_told_to_stop_and_does_not_is_lost_in_the_end() -> None:
    met = all_ready(1)
    met.stop("the rendezvous was interrupted")
    assert not met.look(3 * S)
    for now_s in range(4, 33, 5):
        say(met, 1, now_s)
        assert not met.look(now_s * S)
    say(met, 1, 32)
    assert met.look(33 * S)
    assert met.complaints == ["shard 1/1 (host1:1) did not end in time"]


def test_a_run_without_an_end_has_one() -> None:
    met = all_ready(1)
    for now_s in range(3, 602, 9):
        say(met, 1, now_s)
        assert not met.look(now_s * S), now_s
    say(met, 1, 601)
    assert met.look(602 * S)
    assert met.complaints == ["shard 1/1 (host1:1) did not end in time"]


def test_progress_is_the_sum_of_the_last_words() -> None:
    met = all_ready(2)
    say(met, 1, 3, settled=3, in_flight=2, outcomes={Outcome.SOLD: 3})
    say(met, 1, 4, settled=5, in_flight=1, outcomes={Outcome.SOLD: 3, Outcome.SOLD_OUT: 2})
    say(met, 2, 4, settled=2, in_flight=4, outcomes={Outcome.SOLD_OUT: 2})
    assert met.progress() == (7, 5, {Outcome.SOLD: 3, Outcome.SOLD_OUT: 4})


def test_a_clock_is_read_at_the_middle_of_the_round_trip() -> None:
    assert ClockReading.of(1_000, 51_100, 200) == ClockReading(50_000, 100)
    assert ClockReading.of(1_000, 51_100, 201) == ClockReading(49_999, 101), "never less than it is"


def test_the_best_reading_is_that_of_the_shortest_round_trip() -> None:
    """Whatever was held up on one way only: the truth is within the error of each, least of it."""
    ahead_us, readings = 7_000, []
    for there_us, back_us in ((900, 80), (60, 70), (50, 4_000)):
        asked_us = 1_000_000
        told_us = asked_us + there_us + ahead_us
        readings.append(ClockReading.of(asked_us, told_us, there_us + back_us))
    assert all(abs(each.offset_us - ahead_us) <= each.error_us for each in readings)
    assert ClockReading.best(readings) == readings[1]
    assert readings[1].error_us == 65
