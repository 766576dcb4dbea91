"""Shops and their types: everybody reads, operators create and change."""

from dataclasses import dataclass

from flashsale.catalog.form import NAME_LENGTH_MAX, NewShop, ShopChange
from flashsale.catalog.shop import Changed, Shops, ShopTypes
from flashsale.model import parse_id
from flashsale.server.answers import BAD_ID, Response, ok, rejected
from flashsale.server.cached import answered, listed
from flashsale.server.caller import Callers
from flashsale.server.query import Query
from flashsale.server.request import Request
from flashsale.server.router import Router

NO_SHOP = rejected("Shop does not exist", 404)
NO_TYPE = rejected("Shop type does not exist")
_CHANGE = {Changed.DONE: ok(), Changed.NO_SHOP: NO_SHOP, Changed.NO_TYPE: NO_TYPE}


@dataclass(frozen=True)
class ShopRoutes:
    """Everything under /shop and /shop-type."""

    callers: Callers
    shops: Shops
    types: ShopTypes

    def mount(self, router: Router) -> None:
        """Add the routes."""
        router.add("GET", "/shop/{id}", self.shop)
        router.add("GET", "/shop/of/type", self.of_type)
        router.add("GET", "/shop/of/name", self.of_name)
        router.add("GET", "/shop-type/list", self.all_types)
        router.add("POST", "/shop", self.callers.operator(self.create))
        router.add("PUT", "/shop", self.callers.operator(self.change))

    async def shop(self, request: Request, segment: str) -> Response:
        """One shop."""
        shop_id = parse_id(segment)
        if shop_id is None:
            return BAD_ID
        answer = await self.shops.read(shop_id)
        return answered(answer.body, answer.source, NO_SHOP)

    async def of_type(self, request: Request, segment: str) -> Response:
        """The shops of a type: the nearest first where x and y say to what, else by id."""
        query = Query(request)
        type_id, number, place = query.id("typeId"), query.page(), query.place()
        if place is None:
            return listed(await self.shops.of_type(type_id, number))
        return listed(await self.shops.near(type_id, number, *place))

    async def of_name(self, request: Request, segment: str) -> Response:
        """The shops whose name contains something."""
        query = Query(request)
        name, number = query.text("name", NAME_LENGTH_MAX), query.page()
        return listed(await self.shops.named(name, number))

    async def all_types(self, request: Request, segment: str) -> Response:
        """Every type of shop."""
        answer = await self.types.everything()
        return answered(answer.body, answer.source)

    async def create(self, request: Request, segment: str) -> Response:
        """A new shop; its id."""
        shop_id = await self.shops.create(await request.form(NewShop))
        return NO_TYPE if shop_id is None else ok(shop_id)

    async def change(self, request: Request, segment: str) -> Response:
        """Change what the body names of a shop."""
        return _CHANGE[await self.shops.change(await request.form(ShopChange))]
