"""Units on their way back to the ledger: the call that returns one, exactly once."""

from flashsale import keys
from flashsale.lua.scripts import script
from flashsale.orders.transitions import Return
from flashsale.storage.channel import Call

_RETURN = script("order_return")


def return_call(returned: Return) -> Call:
    """The call that gives the unit of a cancelled order back, and its user the place. Pure."""
    return Call(
        _RETURN,
        (
            keys.seckill_receipt(returned.voucher_id),
            keys.seckill_order(returned.voucher_id),
            keys.seckill_stock(returned.voucher_id),
        ),
        (returned.user_id, returned.order_id),
    )
