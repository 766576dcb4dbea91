"""What MySQL knows of a batch, sorted: the table behind `repeated` and `rejected`."""

from flashsale.orders.persistence import Known, compare
from flashsale.orders.stream import Order


def order(order_id: int, user_id: int, voucher_id: int = 1) -> Order:
    return Order(f"{order_id}-1", order_id, user_id, voucher_id, 1)


def test_new_orders_are_in_neither_list() -> None:
    assert compare([order(1, 7)], {}, {}) == Known(frozenset(), {})


def test_an_equal_row_is_the_same_order() -> None:
    assert compare([order(1, 7)], {1: (7, 1)}, {(7, 1): 1}).same == {order(1, 7)}


def test_an_equal_row_that_was_cancelled_since_is_the_same_order() -> None:
    """It holds no place any more, and must not be written again."""
    known = compare([order(1, 7)], {1: (7, 1)}, {})
    assert known == Known(frozenset({order(1, 7)}), {})


def test_a_cancelled_row_beside_a_newer_order_of_the_user() -> None:
    known = compare([order(1, 7), order(2, 7)], {1: (7, 1), 2: (7, 1)}, {(7, 1): 2})
    assert known == Known(frozenset({order(1, 7), order(2, 7)}), {})


def test_an_id_of_another_order_is_a_conflict() -> None:
    for row in ((8, 1), (7, 2), (8, 2)):
        known = compare([order(1, 7)], {1: row}, {})
        assert known.same == frozenset()
        assert list(known.conflicts) == [order(1, 7)]


def test_a_place_that_another_order_holds_is_a_conflict() -> None:
    known = compare([order(2, 7)], {}, {(7, 1): 1})
    assert known.same == frozenset()
    assert "order 1" in known.conflicts[order(2, 7)]


def test_the_users_order_of_another_voucher_is_none() -> None:
    assert compare([order(2, 7, voucher_id=2)], {}, {(7, 1): 1}) == Known(frozenset(), {})


def test_a_mixed_batch() -> None:
    orders = [order(1, 7), order(2, 8), order(3, 9), order(4, 10)]
    known = compare(orders, {1: (7, 1), 2: (99, 1)}, {(7, 1): 1, (9, 1): 33})
    assert known.same == {orders[0]}
    assert set(known.conflicts) == set(orders[1:3])


def test_two_orders_under_one_id_are_told_apart() -> None:
    """One of them is the row; to take the other for it would lose an accepted order in silence."""
    one, other = order(1, 7), order(1, 8)
    known = compare([one, other], {1: (7, 1)}, {(7, 1): 1})
    assert known.same == {one}
    assert list(known.conflicts) == [other]
