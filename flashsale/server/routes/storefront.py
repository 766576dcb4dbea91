"""Shops, vouchers and blogs: everybody reads, operators create and change, users write and like."""

from dataclasses import dataclass

from flashsale.catalog.blog import BLOG, FIRST_LIKES, HOT_PAGE, OWN_PAGE, Blogs, NotWritten
from flashsale.catalog.json import (
    NAME_LENGTH_MAX,
    NewBlog,
    NewSale,
    NewShop,
    NewVoucher,
    ShopChange,
    closed,
)
from flashsale.catalog.people import CARD, KEPT, SCROLL, People
from flashsale.catalog.shop import (
    NAME_PAGE,
    NEAR_SHOP,
    SHOP,
    SHOP_TYPE,
    TYPE_PAGE,
    ShopChanged,
    Shops,
    ShopTypes,
)
from flashsale.catalog.voucher import VOUCHER, Vouchers
from flashsale.model import parse_id
from flashsale.server.app import Router
from flashsale.server.caller import Callers
from flashsale.server.openapi import COUNT, ID, listing
from flashsale.server.request import (
    CURRENT,
    PLACE,
    TYPE_ID,
    NumberParameter,
    Request,
    TextParameter,
)
from flashsale.server.response import BAD_ID, Response, answered, listed, ok, ok_json, rejected

NO_SHOP = rejected("Shop does not exist", 404)
NO_TYPE = rejected("Shop type does not exist")
_NO_SHOP_OF_IT = rejected("Shop does not exist")
_NO_BLOG = rejected("Blog does not exist", 404)
_NAME = TextParameter("name", NAME_LENGTH_MAX)
_AUTHOR = NumberParameter("id", "an id")
_LAST = NumberParameter("lastId", "a time (Unix ms)")
_OFFSET = NumberParameter("offset", "a number", KEPT, default=0, least=0)
_SCROLL = closed({"list": listing(BLOG, SCROLL), "minTime": COUNT, "offset": COUNT})
_NOT_WRITTEN = {
    NotWritten.NO_SHOP: _NO_SHOP_OF_IT,
    NotWritten.TOO_MANY: rejected("Too many blogs"),
}
_CHANGE = {ShopChanged.DONE: ok(), ShopChanged.NO_SHOP: NO_SHOP, ShopChanged.NO_TYPE: NO_TYPE}


@dataclass(frozen=True)
class ShopRoutes:
    """Everything under /shop and /shop-type."""

    callers: Callers
    shops: Shops
    types: ShopTypes

    def mount(self, router: Router) -> None:
        """Add the routes."""
        router.add("GET", "/shop/{id}", self.shop).gives(SHOP, NO_SHOP).cached()
        of_type = router.add("GET", "/shop/of/type", self.of_type).asks(TYPE_ID, CURRENT, PLACE)
        of_type.gives(listing(NEAR_SHOP, TYPE_PAGE)).cached()
        of_name = router.add("GET", "/shop/of/name", self.of_name).asks(_NAME, CURRENT)
        of_name.gives(listing(SHOP, NAME_PAGE)).cached()
        router.add("GET", "/shop-type/list", self.all_types).gives(listing(SHOP_TYPE)).cached()
        create, change = self.callers.operator(self.create), self.callers.operator(self.change)
        router.add("POST", "/shop", create).takes(NewShop).gives(ID, NO_TYPE)
        router.add("PUT", "/shop", change).takes(ShopChange).gives(None, NO_SHOP, NO_TYPE)

    async def shop(self, request: Request, segment: str) -> Response:
        """One shop."""
        shop_id = parse_id(segment)
        if shop_id is None:
            return BAD_ID
        answer = await self.shops.read(shop_id)
        return answered(answer.body, answer.source, NO_SHOP)

    async def of_type(self, request: Request, segment: str) -> Response:
        """The shops of a type: the nearest first where x and y say to what, else by id."""
        type_id, number, place = TYPE_ID.of(request), CURRENT.of(request), PLACE.of(request)
        if place is None:
            return listed(await self.shops.of_type(type_id, number))
        return listed(await self.shops.near(type_id, number, *place))

    async def of_name(self, request: Request, segment: str) -> Response:
        """The shops whose name contains something."""
        return listed(await self.shops.named(_NAME.of(request), CURRENT.of(request)))

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


@dataclass(frozen=True)
class VoucherRoutes:
    """Everything under /voucher."""

    callers: Callers
    vouchers: Vouchers

    def mount(self, router: Router) -> None:
        """Add the routes."""
        router.add("GET", "/voucher/list/{shopId}", self.of_shop).gives(listing(VOUCHER)).cached()
        create = router.add("POST", "/voucher", self.callers.operator(self.create))
        create.takes(NewVoucher).gives(ID, _NO_SHOP_OF_IT)
        sale = router.add("POST", "/voucher/seckill", self.callers.operator(self.create_sale))
        sale.takes(NewSale).gives(ID, _NO_SHOP_OF_IT)

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
    return _NO_SHOP_OF_IT if voucher_id is None else ok(voucher_id)


@dataclass(frozen=True)
class BlogRoutes:
    """Everything under /blog."""

    callers: Callers
    blogs: Blogs
    people: People

    def mount(self, router: Router) -> None:
        """Add the routes."""
        hot = router.add("GET", "/blog/hot", self.callers.anybody(self.hot)).asks(CURRENT)
        hot.gives(listing(BLOG, HOT_PAGE)).cached()
        blog = router.add("GET", "/blog/{id}", self.callers.anybody(self.blog))
        blog.gives(BLOG, _NO_BLOG).cached()
        like = self.callers.signed_in(self.like)
        router.add("PUT", "/blog/like/{id}", like).gives(None, _NO_BLOG)
        likers = router.add("GET", "/blog/likes/{id}", self.likers)
        likers.gives(listing(CARD, FIRST_LIKES))
        create = router.add("POST", "/blog", self.callers.signed_in(self.create))
        create.takes(NewBlog).gives(ID, *_NOT_WRITTEN.values())
        mine = router.add("GET", "/blog/of/me", self.callers.signed_in(self.of_me)).asks(CURRENT)
        mine.gives(listing(BLOG, OWN_PAGE)).cached()
        others = router.add("GET", "/blog/of/user", self.callers.signed_in(self.of_user))
        others.asks(_AUTHOR, CURRENT).gives(listing(BLOG, OWN_PAGE)).cached()
        followed = router.add("GET", "/blog/of/follow", self.callers.signed_in(self.of_follow))
        followed.asks(_LAST, _OFFSET).gives_perhaps(_SCROLL)

    async def hot(self, request: Request, segment: str, user_id: int | None) -> Response:
        """A page of the most liked blogs."""
        return listed(await self.blogs.hot(CURRENT.of(request), user_id))

    async def blog(self, request: Request, segment: str, user_id: int | None) -> Response:
        """One blog."""
        blog_id = parse_id(segment)
        if blog_id is None:
            return BAD_ID
        body, source = await self.blogs.read(blog_id, user_id)
        return answered(body, source, _NO_BLOG)

    async def like(self, request: Request, segment: str, user_id: int) -> Response:
        """Like it; the second time, no longer."""
        blog_id = parse_id(segment)
        if blog_id is None:
            return BAD_ID
        return ok() if await self.blogs.like(blog_id, user_id) else _NO_BLOG

    async def likers(self, request: Request, segment: str) -> Response:
        """Those who liked it first."""
        blog_id = parse_id(segment)
        if blog_id is None:
            return BAD_ID
        return ok(await self.people.cards(await self.blogs.first_likers(blog_id)))

    async def create(self, request: Request, segment: str, user_id: int) -> Response:
        """A new blog; its id. Those who follow its author find it in what they follow."""
        made = await self.blogs.create(user_id, await request.form(NewBlog))
        return _NOT_WRITTEN[made] if isinstance(made, NotWritten) else ok(made)

    async def of_me(self, request: Request, segment: str, user_id: int) -> Response:
        """A page of one's own blogs, the newest first."""
        return listed(await self.blogs.written_by(user_id, CURRENT.of(request), user_id))

    async def of_user(self, request: Request, segment: str, user_id: int) -> Response:
        """A page of somebody's blogs, the newest first."""
        author, number = _AUTHOR.of(request), CURRENT.of(request)
        return listed(await self.blogs.written_by(author, number, user_id))

    async def of_follow(self, request: Request, segment: str, user_id: int) -> Response:
        """What those whom one follows have written, from `lastId` (Unix ms) backwards, and where it
        goes on; no data at the end."""
        last_ms, offset = _LAST.of(request), _OFFSET.of(request)
        found = await self.blogs.followed(user_id, last_ms, offset)
        if found is None:
            return ok()
        page, scroll = found
        told = (page.body, scroll.min_ms, scroll.offset)
        return ok_json(b'{"list":%b,"minTime":%d,"offset":%d}' % told)
