"""Every Redis key, spelled in one place. Roles: *ledger* must not be lost, *cache* may be."""

import re

STREAM_ORDERS = "stream.orders"
"""Ledger stream: accepted orders on their way to MySQL (userId, voucherId, id, ms)."""

STREAM_DEAD = "stream.orders.dead"
"""Ledger stream: entries that can never become a row, with the reason."""

DEAD_ORDERS = "stream.orders.dead:ids"
"""Ledger hash: order id → reason, for every order in STREAM_DEAD."""

GROUP = "g1"
"""The order workers' consumer group on STREAM_ORDERS."""

LOCK_FENCE = "lock:fence"
"""Ledger counter: the fencing numbers of all locks."""

CACHE_BOOT = "cache:boot"
"""Cache string: present while the cache holds what `warm` put there."""

LOADED_SALES = "seckill:sales"
"""Ledger set: the ids of all vouchers whose sale was loaded."""

EPOCH = "seckill:epoch"
"""Ledger string: the random mark that MySQL has, too; a ledger with another one is another."""

PERMIT = "seckill:permit"
"""Ledger string: what whoever compared the ledger with MySQL wrote, `run id:random`; no permit, no
sale."""

CLOSED = "seckill:closed"
"""Ledger string: why no permit is written for now, though the ledger is not behind."""


def seckill_stock(voucher_id: int) -> str:
    """Ledger string: units left."""
    return f"seckill:stock:{voucher_id}"


def seckill_order(voucher_id: int) -> str:
    """Ledger set: ids of the users who hold an order; the family's tools read it."""
    return f"seckill:order:{voucher_id}"


def seckill_receipt(voucher_id: int) -> str:
    """Ledger hash: user id → order id, written in the same script that sells."""
    return f"seckill:receipt:{voucher_id}"


def seckill_sale(voucher_id: int) -> str:
    """Ledger hash: begin, end (Unix ms), state (open, paused, closed), initial (units); once it was
    changed, the last change with whether it was refused, and units that ever came (restocked)."""
    return f"seckill:sale:{voucher_id}"


def seckill_idempotency(voucher_id: int) -> str:
    """Ledger hash: user id → digest of the Idempotency-Key that won, a space, the order id."""
    return f"seckill:idempotency:{voucher_id}"


def login_token(token: str) -> str:
    """Ledger hash: the session behind a token (id, nickName, icon)."""
    return f"login:token:{token}"


def login_sessions(user_id: int) -> str:
    """Ledger sorted set: the keys of a user's sessions that may live, by their end (Unix ms)."""
    return f"login:sessions:{user_id}"


def login_code(phone: str) -> str:
    """Ledger hash: the pending phone code."""
    return f"login:code:{phone}"


def login_budget(what: str, whose: str) -> str:
    """Ledger string: how often `whose` (a phone, an address) did `what` in its current window."""
    return f"login:budget:{what}:{whose}"


def sign(user_id: int, month: str) -> str:
    """Ledger bitmap: the days of `month` (yyyyMM, UTC) on which a user signed in, from bit 0."""
    return f"sign:{user_id}:{month}"


_COUNTERS = "icr:order:"

ORDER_COUNTERS = f"{_COUNTERS}%"
"""The names of all order counters, as LIKE has it."""


def order_counter(day: str) -> str:
    """Ledger counter: order numbers handed out on `day` (yyyy:MM:dd, UTC)."""
    return f"{_COUNTERS}{day}"


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


DATA_SET_KEYS = frozenset(
    {STREAM_ORDERS, STREAM_DEAD, DEAD_ORDERS, LOADED_SALES, EPOCH, PERMIT, CLOSED}
)
"""Ledger keys that all sales share."""

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

_OF_SALE = re.compile(r"seckill:(?:stock|order|receipt|sale|idempotency):([0-9]{1,19})")
_OF_USER = re.compile(r"sign:([0-9]{1,19}):[0-9]{6}|login:sessions:([0-9]{1,19})")
_OF_PHONE = re.compile(r"login:(?:code|budget:phone):([0-9]{11})")


def voucher_of(key: str) -> int | None:
    """The voucher whose sale `key` belongs to; None for any other key."""
    found = _OF_SALE.fullmatch(key)
    return int(found[1]) if found else None


def user_of(key: str) -> int | None:
    """The user whose sign-ins of a month, or sessions, `key` holds; None for any other key."""
    found = _OF_USER.fullmatch(key)
    return int(found[1] or found[2]) if found else None


def phone_of(key: str) -> int | None:
    """The phone whose code or budget `key` holds; None for any other key."""
    found = _OF_PHONE.fullmatch(key)
    return int(found[1]) if found else None


def is_session(key: str) -> bool:
    """True for a key that a session may be behind."""
    return key.startswith("login:token:")


PROBE = "lock:probe"
"""Key that is in neither store: to delete it tells whether the store can be written to."""

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
"""Patterns of the keys that a replica's account, and a worker's, can touch."""

PAGE_KINDS = (
    *("shop", "shop-type", "shop-type-page", "shop-name-page"),
    *("blog", "blog-hot", "blog-likes", "voucher-list", "user"),
)
"""The kinds of cached things that the storefront has."""

_PAGES = re.compile(
    rf"cache:boot|(?:cache|lock):(?:{'|'.join(PAGE_KINDS)}):.+|(?:lock:)?shop:geo:[0-9]+(?::.+)?"
    r"|(?:lock:)?(?:blog:liked|follows|feed):[0-9]+"
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
