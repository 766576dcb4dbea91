"""Opening a sale from a replica: its stock and terms into the ledger, by the one loading script."""

from flashsale import keys
from flashsale.errors import Indeterminate, Unavailable
from flashsale.lua.scripts import script
from flashsale.seckill.sale import Terms, sale_keys
from flashsale.storage.channel import Call, Channel

_LOAD = script("sale_load")
_CREATED, _THERE = 1, 0
_TRIES = 3


class Opening:
    """Loads new sales into the ledger."""

    def __init__(self, ledger: Channel) -> None:
        self._ledger = ledger

    def __repr__(self) -> str:
        return f"<Opening {self._ledger!r}>"

    async def load(self, terms: Terms) -> None:
        """Load a sale that MySQL has just learned of; it can be bought from then on.

        Raises Unavailable where the ledger certainly has not got it, Indeterminate where it may.
        A call whose answer was lost is repeated: the script loads a sale once.
        """
        call = Call(
            _LOAD,
            sale_keys(terms.voucher_id),
            (terms.voucher_id, terms.stock, terms.begin_ms, terms.end_ms),
        )
        lost: Indeterminate | None = None
        for _ in range(_TRIES):
            try:
                reply = (await self._ledger.run([call]))[0]
            except Unavailable as unavailable:
                reply = unavailable
            if isinstance(reply, Indeterminate):
                lost = reply
            elif not isinstance(reply, Unavailable):
                return await self._judge(terms, reply, repeated=lost is not None)
            elif lost is None:
                raise reply
        assert lost is not None
        raise lost

    async def _judge(self, terms: Terms, reply: int, *, repeated: bool) -> None:
        if reply == _CREATED:
            return
        if repeated and reply == _THERE and await self._is_ours(terms):
            return
        raise Unavailable(f"the ledger holds another sale of voucher {terms.voucher_id}")

    async def _is_ours(self, terms: Terms) -> bool:
        found = await self._ledger.ask(
            "HMGET", keys.seckill_sale(terms.voucher_id), "begin", "end", "initial"
        )
        return bool(found == [str(terms.begin_ms), str(terms.end_ms), str(terms.initial)])
