"""Entries of the stream: an order, or the reason why it is none."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flashsale.model import ID_MAX
from flashsale.orders.stream import Malformed, Order, read_entry

GOOD = {"userId": "7", "voucherId": "1", "id": "1001", "ms": "1767225600123"}
LAST_MS = 253_402_300_799_999  # 9999-12-31T23:59:59.999Z


def test_an_order() -> None:
    assert read_entry("1767225600123-4", GOOD) == Order(
        "1767225600123-4", 1001, 7, 1, 1767225600123
    )


def test_fields_nobody_asked_for_do_not_matter() -> None:
    assert isinstance(read_entry("1-1", {**GOOD, "more": "x"}), Order)


@pytest.mark.parametrize("name", list(GOOD))
@pytest.mark.parametrize(
    "value", ["", "0", "-1", "1.0", "1e3", " 1", "abc", "١", str(ID_MAX + 1), "0x1", "1\n"]
)
def test_what_is_no_id_is_named(name: str, value: str) -> None:
    fields = {**GOOD, name: value}
    assert read_entry("1-1", fields) == Malformed("1-1", fields, f"no valid {name}")


@pytest.mark.parametrize("name", list(GOOD))
def test_what_is_missing_is_named(name: str) -> None:
    fields = {field: value for field, value in GOOD.items() if field != name}
    found = read_entry("1-1", fields)
    assert isinstance(found, Malformed)
    assert found.reason == f"no valid {name}"


def test_everything_missing_is_named_at_once() -> None:
    found = read_entry("1-1", {})
    assert isinstance(found, Malformed)
    assert found.reason == "no valid id, userId, voucherId, ms"


def test_largest_values_that_fit_the_columns() -> None:
    fields = {
        "userId": str(ID_MAX),
        "voucherId": str(ID_MAX),
        "id": str(ID_MAX),
        "ms": str(LAST_MS),
    }
    assert read_entry("1-1", fields) == Order("1-1", ID_MAX, ID_MAX, ID_MAX, LAST_MS)
    late = read_entry("1-1", {**fields, "ms": str(LAST_MS + 1)})
    assert isinstance(late, Malformed)
    assert late.reason == "no valid ms"


@pytest.mark.parametrize("entry_id", [f"{2**63}-1", f"1-{2**63}", f"{2**64 - 1}-{2**64 - 1}"])
def test_a_place_that_no_column_holds_is_of_an_order_as_good_as_any(entry_id: str) -> None:
    """Whoever wrote such an id, what is sold after it has one beyond."""
    assert isinstance(read_entry(entry_id, GOOD), Order)


@given(
    st.dictionaries(
        st.sampled_from([*GOOD, "other"]),
        st.text("0123456789-. x١", max_size=25)
        | st.integers(-5, 2**70).map(str)
        | st.sampled_from(list(GOOD.values())),
    )
)
def test_any_fields_give_an_order_or_a_reason(fields: dict[str, str]) -> None:
    found = read_entry("5-6", fields)
    if isinstance(found, Malformed):
        assert found.reason.startswith("no valid ")
        assert found.fields == fields
    else:
        for value in (found.order_id, found.user_id, found.voucher_id):
            assert 1 <= value <= ID_MAX
        assert 1 <= found.accepted_ms <= LAST_MS
        assert {name: fields[name] for name in GOOD} == {
            "userId": str(found.user_id),
            "voucherId": str(found.voucher_id),
            "id": str(found.order_id),
            "ms": str(found.accepted_ms),
        } or any(value.startswith("0") for value in fields.values())


def test_a_position_is_numbers_not_text() -> None:
    orders = [Order(entry_id, 1, 1, 1, 1) for entry_id in ("9-9", "10-2", "10-9", "10-11")]
    positions = [order.position for order in orders]
    assert positions == sorted(positions)
    assert positions[-1] == (10, 11)
