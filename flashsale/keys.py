"""Every Redis key, spelled in one place. Roles: *ledger* must not be lost, *cache* may be."""

import re
from dataclasses import dataclass, field
from zlib import crc32

GROUP = "g1"
"""The order workers' consumer group on every stream of orders."""

_COUNTERS = "icr:order:"

ORDER_COUNTERS = f"{_COUNTERS}%"
"""The names of all order counters, as LIKE has it."""


@dataclass(frozen=True, slots=True)
class Lane:
    """A part of the ledger that is whole by itself: a stream of orders, and all that is written
    together with it or compared with it.

    A ledger on one server is one lane, which spells its keys as the family does. On a cluster a
    lane is one slot: each of its keys has the lane's hash tag, `number` of `lanes`.
    """

    number: int = 0
    lanes: int = 1
    tag: str = ""
    hash_tag: str = field(init=False, default="")
    """What its keys have in common, in braces; "" for the whole ledger."""
    _head: str = field(init=False, default="")
    _tail: str = field(init=False, default="")

    def __post_init__(self) -> None:
        if self.tag:
            hash_tag = f"{{{self.tag}}}"
            object.__setattr__(self, "hash_tag", hash_tag)
            object.__setattr__(self, "_head", f"{hash_tag}:")
            object.__setattr__(self, "_tail", f":{hash_tag}")

    def __repr__(self) -> str:
        return f"<Lane {self.tag or 'whole'}>"

    def sells(self, voucher_id: int) -> bool:
        """Whether a voucher's sale is in this lane."""
        return voucher_id % self.lanes == self.number

    def has(self, key: str) -> bool:
        """Whether a key of the ledger is this lane's."""
        return self.hash_tag in key

    @property
    def stream_orders(self) -> str:
        """Ledger stream: accepted orders on their way to MySQL (userId, voucherId, id, ms)."""
        return f"stream.orders{self._tail}"

    @property
    def stream_dead(self) -> str:
        """Ledger stream: entries that can never become a row, with the reason."""
        return f"stream.orders.dead{self._tail}"

    @property
    def dead_orders(self) -> str:
        """Ledger hash: order id → reason, for every order among the dead letters."""
        return f"stream.orders.dead:ids{self._tail}"

    @property
    def lock_fence(self) -> str:
        """Ledger counter: fencing numbers of locks. Those of different lanes do not compare."""
        return f"lock:fence{self._tail}"

    @property
    def probe(self) -> str:
        """Key that is nowhere: to delete it tells whether the store can be written to."""
        return f"lock:probe{self._tail}"

    @property
    def loaded_sales(self) -> str:
        """Ledger set: the ids of all vouchers whose sale was loaded."""
        return f"seckill:sales{self._tail}"

    @property
    def epoch(self) -> str:
        """Ledger string: the random mark that MySQL has, too; a ledger with another one is
        another."""
        return f"seckill:epoch{self._tail}"

    @property
    def permit(self) -> str:
        """Ledger string: what whoever compared the ledger with MySQL wrote, `run id:random`; no
        permit, no sale."""
        return f"seckill:permit{self._tail}"

    @property
    def closed(self) -> str:
        """Ledger string: why no permit is written for now, though the ledger is not behind."""
        return f"seckill:closed{self._tail}"

    def seckill_stock(self, voucher_id: int) -> str:
        """Ledger string: units left."""
        return f"seckill:stock:{self._head}{voucher_id}"

    def seckill_order(self, voucher_id: int) -> str:
        """Ledger set: ids of the users who hold an order; the family's tools read it."""
        return f"seckill:order:{self._head}{voucher_id}"

    def seckill_receipt(self, voucher_id: int) -> str:
        """Ledger hash: user id → order id, written in the same script that sells."""
        return f"seckill:receipt:{self._head}{voucher_id}"

    def seckill_sale(self, voucher_id: int) -> str:
        """Ledger hash: begin, end (Unix ms), state (open, paused, closed), initial (units); once it
        was changed, the last change with whether it was refused, and units that ever came
        (restocked)."""
        return f"seckill:sale:{self._head}{voucher_id}"

    def seckill_idempotency(self, voucher_id: int) -> str:
        """Ledger hash: user id → digest of the Idempotency-Key that won, a space, the order id."""
        return f"seckill:idempotency:{self._head}{voucher_id}"

    def login_token(self, token: str) -> str:
        """Ledger hash: the session behind a token (id, nickName, icon)."""
        return f"login:token:{self._head}{token}"

    def login_sessions(self, user_id: int) -> str:
        """Ledger sorted set: the keys of a user's sessions that may live, by their end (Unix
        ms)."""
        return f"login:sessions:{self._head}{user_id}"

    def login_code(self, phone: str) -> str:
        """Ledger hash: the pending phone code."""
        return f"login:code:{self._head}{phone}"

    def login_budget(self, what: str, whose: str) -> str:
        """Ledger string: how often `whose` (a phone, an address) did `what` in its current
        window."""
        return f"login:budget:{self._head}{what}:{whose}"

    def sign(self, user_id: int, month: str) -> str:
        """Ledger bitmap: the days of `month` (yyyyMM, UTC) on which a user signed in, from bit
        0."""
        return f"sign:{self._head}{user_id}:{month}"

    def order_counter(self, day: str) -> str:
        """Ledger counter: order numbers handed out on `day` (yyyy:MM:dd, UTC)."""
        return f"{_COUNTERS}{self._head}{day}"


WHOLE = Lane()
"""A ledger on one server."""

TAGS = ("lane0d", "lane1ar", "lane2i", "lane3", "lane4ab", "lane5d")
"""The hash tags of a cluster's lanes. Their slots lie evenly: each has a sixth of all slots to
itself, and three lanes in a row are in three thirds. Fixed, since a voucher's lane follows from how
many there are."""


@dataclass(frozen=True, slots=True)
class Layout:
    """How the keys of a ledger are spelled: its lanes, and what is in which."""

    lanes: tuple[Lane, ...]

    @property
    def is_whole(self) -> bool:
        """True for a ledger on one server."""
        return len(self.lanes) == 1

    @property
    def home(self) -> Lane:
        """Where what is nobody's is: phone codes with their budgets, the task locks' fence."""
        return self.lanes[0]

    def of(self, voucher_id: int) -> Lane:
        """The lane of a voucher's sale."""
        return self.lanes[voucher_id % len(self.lanes)]

    def of_user(self, user_id: int) -> Lane:
        """The lane of a user's sessions and sign-ins."""
        return self.lanes[user_id % len(self.lanes)]

    def of_token(self, token: str) -> Lane:
        """The lane of a session, by its token alone: a user's tokens are drawn so that it is the
        user's lane."""
        return self.lanes[crc32(token.encode()) % len(self.lanes)]

    def of_key(self, key: str) -> Lane | None:
        """The lane that a key is in by its hash tag; None for one of no lane."""
        if self.is_whole:
            return self.home
        found = _TAG.search(key)
        return _BY_TAG.get(found[1]) if found else None


_TAG = re.compile(r"\{([^}]*)\}")

SINGLE = Layout((WHOLE,))
"""The family's: one server has all of it."""

CLUSTER = Layout(tuple(Lane(n, len(TAGS), tag) for n, tag in enumerate(TAGS)))
"""A Redis Cluster: one lane, one slot."""

_BY_TAG = {lane.tag: lane for lane in CLUSTER.lanes}

# As most of the code knows them: those of a ledger on one server.
STREAM_ORDERS, STREAM_DEAD, DEAD_ORDERS = WHOLE.stream_orders, WHOLE.stream_dead, WHOLE.dead_orders
LOCK_FENCE, LOADED_SALES, PROBE = WHOLE.lock_fence, WHOLE.loaded_sales, WHOLE.probe
EPOCH, PERMIT, CLOSED = WHOLE.epoch, WHOLE.permit, WHOLE.closed
seckill_stock, seckill_order = WHOLE.seckill_stock, WHOLE.seckill_order
seckill_receipt, seckill_sale = WHOLE.seckill_receipt, WHOLE.seckill_sale
seckill_idempotency, order_counter = WHOLE.seckill_idempotency, WHOLE.order_counter
login_token, login_sessions = WHOLE.login_token, WHOLE.login_sessions
login_code, login_budget, sign = WHOLE.login_code, WHOLE.login_budget, WHOLE.sign

CACHE_BOOT = "cache:boot"
"""Cache string: present while the cache holds what `warm` put there."""


def shop_geo(type_id: int) -> str:
    """Cache geo set: ids of the shops of a type, and 0, which is no shop, so that it exists."""
    return f"shop:geo:{type_id}"


def shop_geo_build(type_id: int, token: str) -> str:
    """Cache geo set: one that is being built, to take the place of `shop_geo`."""
    return f"shop:geo:{type_id}:{token}"


def shop_geo_lock(type_id: int) -> str:
    """Cache string: the token of who builds `shop_geo`; whoever changes a shop deletes it."""
    return f"lock:shop:geo:{type_id}"


def order_lock(user_id: int) -> str:
    """Cache string: the lock under which a user's order is written."""
    return f"lock:order:{user_id}"


def lock(name: str) -> str:
    """Cache string: the lock `name`, `owner fence`."""
    return f"lock:{name}"


def lock_wake(name: str) -> str:
    """Cache list: one element when the lock `name` was given back, for the next in line."""
    return f"wake:{name}"


_LIKED, _FOLLOWS, _FEED, _INDEX_LOCK = "blog:liked:{}", "follows:{}", "feed:{}", "lock:{}"


def blog_liked(blog_id: int) -> tuple[str, str]:
    """Cache sorted set: the first who like a blog, by when (Unix ms); and its reader's lock."""
    return _LIKED.format(blog_id), _INDEX_LOCK.format(_LIKED.format(blog_id))


def follows(user_id: int) -> tuple[str, str]:
    """Cache set: whom a user follows; and the lock of its reader."""
    return _FOLLOWS.format(user_id), _INDEX_LOCK.format(_FOLLOWS.format(user_id))


def feed(user_id: int) -> tuple[str, str]:
    """Cache sorted set: the newest blogs of those whom a user follows, by when (Unix ms); and the
    lock of its reader."""
    return _FEED.format(user_id), _INDEX_LOCK.format(_FEED.format(user_id))


_ENTRY = "cache:{}:{}"
_ENTRY_LOCK = "lock:{}:{}"


def cache_entry(kind: str, entry_id: int | str) -> str:
    """Cache string: one thing of a kind, `{"expireTime":…,"data":…}`."""
    return _ENTRY.format(kind, entry_id)


def cache_lock(kind: str, entry_id: int | str) -> str:
    """Cache string: the token of whoever loads that thing now."""
    return _ENTRY_LOCK.format(kind, entry_id)


def bloom(name: str) -> tuple[str, str, str]:
    """Cache hash and two strings: what a filter is, and its two generations."""
    return f"bloom:{name}", f"bloom:0:{name}", f"bloom:1:{name}"


def bloom_fill(name: str) -> str:
    """Cache string: the bitmap of a filter that is being rebuilt."""
    return f"bloom:fill:{name}"


EVERY_LANE = (WHOLE, *CLUSTER.lanes)

DATA_SET_KEYS = frozenset(
    key
    for lane in EVERY_LANE
    for key in (
        *(lane.stream_orders, lane.stream_dead, lane.dead_orders, lane.loaded_sales),
        *(lane.epoch, lane.permit, lane.closed),
    )
)
"""Ledger keys that all sales of a lane share."""

_DATA_SET_PREFIXES = (
    "seckill:stock:",
    "seckill:order:",
    "seckill:receipt:",
    "seckill:sale:",
    "seckill:idempotency:",
    "login:token:",
    "login:sessions:",
    "login:code:",
    "login:budget:",
    "sign:",
)


SALES = "seckill:*"
"""A pattern of every key of a sale."""

_LANE_HEAD = re.compile(r"\{[^}]*\}:")
_OF_SALE = re.compile(r"seckill:(?:stock|order|receipt|sale|idempotency):([0-9]{1,19})")
_OF_USER = re.compile(r"sign:([0-9]{1,19}):[0-9]{6}|login:sessions:([0-9]{1,19})")
_OF_PHONE = re.compile(r"login:(?:code|budget:phone):([0-9]{11})")


def voucher_of(key: str) -> int | None:
    """The voucher whose sale `key` belongs to; None for any other key."""
    found = _OF_SALE.fullmatch(_LANE_HEAD.sub("", key))
    return int(found[1]) if found else None


def user_of(key: str) -> int | None:
    """The user whose sign-ins of a month, or sessions, `key` holds; None for any other key."""
    found = _OF_USER.fullmatch(_LANE_HEAD.sub("", key))
    return int(found[1] or found[2]) if found else None


def phone_of(key: str) -> int | None:
    """The phone whose code or budget `key` holds; None for any other key."""
    found = _OF_PHONE.fullmatch(_LANE_HEAD.sub("", key))
    return int(found[1]) if found else None


def is_session(key: str) -> bool:
    """True for a key that a session may be behind."""
    return key.startswith("login:token:")


REPLICA_LEDGER = (
    *("seckill:*", f"{STREAM_ORDERS}*", "icr:order:*", "login:*", "sign:*"),
    *(LOCK_FENCE, PROBE),
)
REPLICA_CACHE = (
    *("cache:*", "bloom:*", "shop:geo:*", "lock:*", "wake:*"),
    *("blog:liked:*", "follows:*", "feed:*"),
)
WORKER_LEDGER = ("seckill:*", f"{STREAM_ORDERS}*", "icr:order:*", LOCK_FENCE, PROBE)
WORKER_CACHE = ("lock:order:*", PROBE)
LANES = (f"{LOCK_FENCE}:*", f"{PROBE}:*")
"""Patterns of the keys that a replica's account, and a worker's, can touch; LANES are both's on a
cluster's ledger, too."""

_N = "[1-9][0-9]{0,18}"
PAGE_KINDS = {
    **dict.fromkeys(("shop", "blog", "blog-hot", "blog-likes", "voucher-list", "user"), _N),
    "shop-type": "all",
    "shop-type-page": f"{_N}:{_N}",
    "shop-name-page": f"{_N}:.+",
}
"""The kinds of cached things that the storefront has, each with what its ids look like."""

_PAGES = re.compile(
    rf"cache:boot|(?:cache|lock):(?:{'|'.join(map(':'.join, PAGE_KINDS.items()))})"
    rf"|shop:geo:{_N}:[0-9a-f]{{16}}|(?:lock:)?(?:shop:geo|blog:liked|follows|feed):{_N}",
    re.DOTALL,
)
_BLOOMS = re.compile(r"bloom:(?:[01]:|fill:)?(?:shop|blog)")


def belongs_to_pages(key: str) -> bool:
    """True for a cache key that holds something read from MySQL, or the lock of who reads it."""
    return _PAGES.fullmatch(key) is not None


def tells_follows(key: str) -> bool:
    """True for a cache key that is made from who follows whom, or the lock of who makes it."""
    heads = (_FOLLOWS.format(""), _FEED.format(""))
    return belongs_to_pages(key) and key.removeprefix(_INDEX_LOCK.format("")).startswith(heads)


def belongs_to_cache(key: str) -> bool:
    """True for a cache key that goes when its data set is reset. Locks of orders stay."""
    return belongs_to_pages(key) or _BLOOMS.fullmatch(key) is not None


def belongs_to_data_set(key: str) -> bool:
    """True for a ledger key of a kind that goes when its data set is reset.

    Whether it is that data set's is told by its id (`seeding/ours.py`).

    The counters behind order ids and fences stay: a replica that runs on holds a leased block of
    numbers, and starting again from one would hand them out twice.
    """
    return key in DATA_SET_KEYS or key.startswith(_DATA_SET_PREFIXES)
