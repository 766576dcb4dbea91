"""Turns: a free lane at once, else first come, first served."""

from flashsale.storm.attack.turns import Turns


def test_who_is_due_takes_a_free_lane_and_who_has_waited_longest_goes_next() -> None:
    turns = Turns(2)
    assert (turns.take(7), turns.take(8)) == (0, 1)
    assert (turns.take(9), turns.take(10)) == (None, None)
    assert repr(turns) == "<Turns idle=0 waiting=2>"
    assert (turns.give_back(1), turns.give_back(1)) == (9, 10)
    assert (turns.give_back(1), turns.take(11)) == (None, 1)


def test_who_is_forgotten_gets_no_turn() -> None:
    turns = Turns(1)
    assert (turns.take(1), turns.take(2)) == (0, None)
    turns.forget()
    assert turns.give_back(0) is None
    assert turns.take(3) == 0
