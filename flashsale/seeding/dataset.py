"""The data set: every row a pure function of the seed and its id, so that it can be extended."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Table
from xxhash import xxh64_intdigest

from flashsale.seeding.settings import SeedSettings, Window
from flashsale.storage import tables

Value = int | float | str
Row = tuple[Value, ...]

SHOP_TYPES = (
    "Food",
    "Karaoke",
    "Hair",
    "Fitness",
    "Massage",
    "Beauty",
    "Families",
    "Bars",
    "Parties",
    "Nails",
)
BLOGS = 4
FOLLOWERS = 7
"""Users from the second on who follow the first."""

_CITIES = ("Beijing", "Chengdu", "Guangzhou", "Hangzhou", "Nanjing", "Shanghai", "Wuhan", "Xian")
_AREAS = ("Lakeside", "Old Town", "Riverbank", "Station", "University", "West Gate")
_ADJECTIVES = ("Bright", "Golden", "Green", "Happy", "Little", "Lucky", "Quiet", "Red")
_NOUNS = ("Corner", "Garden", "House", "Lantern", "Palace", "Pavilion", "Studio", "Terrace")
_PRAISE = ("A table by the window", "Worth the queue", "We will be back", "A quiet afternoon")

_PHONE_BASE = 13_000_000_000
_PHONE_SPAN = 1_000_000_000 - 10_000_000
"""Where the seed may put the first of at most 10,000,000 numbers, so that all begin with 13."""

_MOST_SOLD = 1_000_000
"""What the first shop has sold. The nth has sold a share of 1/n of it, as popularity goes, so that
the hot shops, which `warm` keeps in the cache, are those with the lowest ids."""

_LONGITUDE, _LATITUDE, _EXTENT = 120.05, 30.20, 0.2
"""The shops lie in one city, about twenty kilometres across."""


@dataclass(frozen=True)
class Portion:
    """The rows of one table: `count` consecutive ids from `first`, each row made from its id."""

    name: str
    table: Table
    columns: Sequence[str]  # the first one is the primary key
    first: int
    count: int
    row: Callable[[int], Row]

    @property
    def ids(self) -> range:
        """The ids of all its rows."""
        return range(self.first, self.first + self.count)


class Dataset:
    """What `settings` describe. Equal settings and windows make equal rows, in every run."""

    def __init__(self, settings: SeedSettings, window: Window) -> None:
        self._settings = settings
        self._window = window
        self._units = settings.voucher_units
        self._phone_first = _PHONE_BASE + self._draw("phone", 0) % _PHONE_SPAN

    def __repr__(self) -> str:
        return f"<Dataset {self._settings}>"

    @property
    def users(self) -> int:
        """Its users have the ids from 1 to this."""
        return self._settings.users

    def portions(self) -> list[Portion]:
        """The rows of every table, in the order in which they are to be written."""
        asked = self._settings
        first_voucher, vouchers = asked.first_voucher, asked.vouchers
        every = [
            Portion("shop types", tables.shop_type, _SHOP_TYPE, 1, len(SHOP_TYPES), _shop_type),
            Portion("shops", tables.shop, _SHOP, 1, asked.shops, self.shop),
            Portion("users", tables.user, _USER, 1, asked.users, self.user),
            Portion("user infos", tables.user_info, _USER_INFO, 1, asked.users, self.user_info),
            Portion("blogs", tables.blog, _BLOG, 1, BLOGS, self.blog),
            Portion("follows", tables.follow, _FOLLOW, 1, self._follows, _follow),
            Portion("vouchers", tables.voucher, _VOUCHER, first_voucher, vouchers, self.voucher),
            Portion("sales", tables.seckill_voucher, _SALE, first_voucher, vouchers, self.sale),
        ]
        return [portion for portion in every if portion.count]  # one user follows nobody

    @property
    def _follows(self) -> int:
        return min(self._settings.users, FOLLOWERS + 1) - 1

    def user(self, user_id: int) -> tuple[int, str, str, str]:
        """Id, phone (unique, 11 digits), nick name and icon: the latter two are the session's."""
        drawn = self._draw("user", user_id)
        phone = str(self._phone_first + user_id - 1)
        return user_id, phone, f"user_{drawn:016x}"[:15], f"/imgs/icons/user{drawn % 9}.jpg"

    def owner_of(self, phone: int) -> int:
        """The id that the user with this phone would have; below 1 for a number of nobody's."""
        return phone - self._phone_first + 1

    def user_info(self, user_id: int) -> Row:
        """Where a user lives and how far they have come."""
        drawn = self._draw("info", user_id)
        fans, followee, gender, level = drawn % 997, drawn % 101, drawn % 2, drawn % 10
        return user_id, _pick(_CITIES, drawn >> 16), fans, followee, gender, drawn % 5_000, level

    def shop(self, shop_id: int) -> Row:
        """A shop of the city; the types take turns."""
        drawn = self._draw("shop", shop_id)
        name = f"{_pick(_ADJECTIVES, drawn)} {_pick(_NOUNS, drawn >> 8)} {shop_id}"
        area = _pick(_AREAS, drawn >> 16)
        x = round(_LONGITUDE + _EXTENT * (drawn >> 24 & 0xFFFF) / 0x10000, 6)
        y = round(_LATITUDE + _EXTENT * (drawn >> 40 & 0xFFFF) / 0x10000, 6)
        return (
            shop_id,
            name,
            1 + (shop_id - 1) % len(SHOP_TYPES),
            f"/imgs/shops/{shop_id}.jpg",
            area,
            f"{area} Road {1 + drawn % 300}",
            x,
            y,
            20 + drawn % 400,
            _MOST_SOLD // shop_id,
            _MOST_SOLD // shop_id // 3,
            30 + drawn % 21,
            "10:00-22:00",
        )

    def blog(self, blog_id: int) -> Row:
        """A blog about one of the shops by one of the users."""
        drawn = self._draw("blog", blog_id)
        shop_id = 1 + drawn % self._settings.shops
        title = _pick(_PRAISE, blog_id)
        content = f"{title}: shop {shop_id} kept what it promised."
        author, image = 1 + drawn % self._settings.users, f"/imgs/blogs/{blog_id}.jpg"
        return blog_id, shop_id, author, title, image, content, drawn % 500

    def voucher(self, voucher_id: int) -> Row:
        """A sale voucher; values are in cents."""
        shop_id = 1 + (voucher_id - 1) % self._settings.shops
        actual = 1_000 * (5 + self._draw("voucher", voucher_id) % 16)
        title, rules = f"Half price at shop {shop_id}", "One a user. Not to be combined."
        return voucher_id, shop_id, title, "While units last", rules, actual // 2, actual, 1, 1

    def sale(self, voucher_id: int) -> Row:
        """The voucher's stock and opening hours."""
        units = self._units[voucher_id]
        return (
            voucher_id,
            units,
            units,
            _sql_moment(self._window.begin),
            _sql_moment(self._window.end),
        )

    def _draw(self, what: str, number: int) -> int:
        return xxh64_intdigest(b"%s %d" % (what.encode(), number), self._settings.seed)


def _sql_moment(moment: datetime) -> str:
    """A UTC time as a DATETIME(3) literal."""
    return moment.replace(tzinfo=None).isoformat(sep=" ", timespec="milliseconds")


def _pick(words: Sequence[str], number: int) -> str:
    return words[number % len(words)]


def _shop_type(type_id: int) -> Row:
    name = SHOP_TYPES[type_id - 1]
    return type_id, name, f"/types/{name.lower()}.png", type_id


def _follow(number: int) -> Row:
    return number, number + 1, 1


_FOLLOW = ("id", "user_id", "follow_user_id")
_SHOP_TYPE = ("id", "name", "icon", "sort")
_SHOP = (
    "id",
    "name",
    "type_id",
    "images",
    "area",
    "address",
    "x",
    "y",
    "avg_price",
    "sold",
    "comments",
    "score",
    "open_hours",
)
_USER = ("id", "phone", "nick_name", "icon")
_USER_INFO = ("user_id", "city", "fans", "followee", "gender", "credits", "level")
_BLOG = ("id", "shop_id", "user_id", "title", "images", "content", "liked")
_VOUCHER = (
    "id",
    "shop_id",
    "title",
    "sub_title",
    "rules",
    "pay_value",
    "actual_value",
    "type",
    "status",
)
_SALE = ("voucher_id", "stock", "initial_stock", "begin_time", "end_time")
