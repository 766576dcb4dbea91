"""Vouchers: everybody reads, operators create."""

from dataclasses import dataclass

from flashsale.catalog.form import NewSale, NewVoucher
from flashsale.catalog.voucher import Vouchers
from flashsale.model import parse_id
from flashsale.server.answers import BAD_ID, Response, ok, rejected
from flashsale.server.cached import answered
from flashsale.server.caller import Callers
from flashsale.server.request import Request
from flashsale.server.router import Router

_NO_SHOP = rejected("Shop does not exist")


@dataclass(frozen=True)
class VoucherRoutes:
    """Everything under /voucher."""

    callers: Callers
    vouchers: Vouchers

    def mount(self, router: Router) -> None:
        """Add the routes."""
        router.add("GET", "/voucher/list/{shopId}", self.of_shop)
        router.add("POST", "/voucher", self.callers.operator(self.create))
        router.add("POST", "/voucher/seckill", self.callers.operator(self.create_sale))

    async def of_shop(self, request: Request, segment: str) -> Response:
        """The vouchers of a shop; none for one that does not exist, as the family has it."""
        shop_id = parse_id(segment)
        if shop_id is None:
            return BAD_ID
        answer = await self.vouchers.of_shop(shop_id)
        return answered(answer.body or b"[]", answer.source)

    async def create(self, request: Request, segment: str) -> Response:
        """A new ordinary voucher; its id."""
        return _created(await self.vouchers.create(await request.form(NewVoucher)))

    async def create_sale(self, request: Request, segment: str) -> Response:
        """A new voucher whose sale can be bought as soon as it begins; its id."""
        return _created(await self.vouchers.create_sale(await request.form(NewSale)))


def _created(voucher_id: int | None) -> Response:
    return _NO_SHOP if voucher_id is None else ok(voucher_id)
