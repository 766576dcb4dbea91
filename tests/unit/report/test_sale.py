import pytest

from flashsale.report.wording import percent, remarks
from flashsale.run.parts import FairnessFigures, SaleFigures

FAIR = FairnessFigures(
    buyers=2000, winners=100, win_rates=[0.5, 0.0005, *[0.0] * 8], precedence=0.987
)
SALE = SaleFigures(
    units=100,
    sold=100,
    refused=1900,
    untold=0,
    left=0,
    undersold=0,
    sold_out_ms=251.2,
    first_told_ms=240.0,
    propagation_ms=112.0,
    propagation_p50_ms=80.0,
    late_sold=0,
    late_by_ms=None,
    fairness=FAIR,
    vouchers=1,
    sold_out_vouchers=1,
)


def told(**changes: object) -> dict[str, bool]:
    """The sentences, and which are odd."""
    return {r.text: r.odd for r in remarks(SALE.model_copy(update=changes))}


def test_a_healthy_sale_in_three_sentences() -> None:
    assert told() == {
        "100 of 100 units sold, sold out after 251 ms": False,
        '"sold out" reached 1,900 buyers within 112 ms of the stock being gone': False,
        "winners had come before losers in 98.7 % of pairs; "
        "50.0 % of the first tenth to come won, 0 % of the last": False,
    }


def test_what_a_healthy_sale_does_not_show_is_odd() -> None:
    found = told(undersold=3, left=3, sold=97, sold_out_ms=None, untold=1)
    assert found["97 of 100 units sold"] is False
    assert found['3 units left though buyers were told "sold out"'] is True
    assert found["1 buyer never learned that it was gone"] is True


def test_orders_that_crossed_a_sold_out_are_told_without_alarm() -> None:
    text = '2 orders arrived after the first "sold out" had, by up to 4.50 ms'
    assert told(late_sold=2, late_by_ms=4.5)[text] is False


def test_units_that_nobody_knows_are_not_named() -> None:
    assert "100 units sold, sold out after 251 ms" in told(units=None)


def test_several_vouchers_are_counted() -> None:
    found = told(vouchers=110, sold_out_vouchers=109, sold_out_ms=None)
    assert "100 of 100 units sold (109 of 110 vouchers sold out)" in found


def test_where_all_won_fairness_says_nothing() -> None:
    fair = FAIR.model_copy(update={"precedence": None})
    assert len(told(fairness=fair, propagation_ms=None)) == 1


@pytest.mark.parametrize(
    ("part", "shown"),
    [(0, "0 %"), (1, "100 %"), (0.98765, "98.8 %"), (0.99999, "> 99.9 %"), (0.0001, "< 0.1 %")],
)
def test_almost_all_is_not_all(part: float, shown: str) -> None:
    assert percent(part) == shown
