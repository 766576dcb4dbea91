"""Orders and stock of a shop that is not ours, as routes of its own tell them in JSON: at once, or
page by page.

A part that is taken for the whole would be a wrong verdict. So a page that says where the next one
is (a link in the body or in a header) is followed, and an answer that says there is more than it
tells is refused.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, urljoin, urlsplit

from flashsale.asking import ABSENT, UnansweredError, ask_once, at_pointer
from flashsale.books import PAGES, ShopBooks
from flashsale.errors import UnreachableError, one_line
from flashsale.verify.shop_rows import Found, Select, UnfitError

_BYTES_MAX = 256 * 1024 * 1024
_TIMEOUT_S = 60.0
_PAGES_MAX = 10_000
_TOTALS = frozenset(
    {"totalelements", "totalcount", "totalitems", "totalresults", "totalrecords", "totalrows"}
)
_OF_PAGES = frozenset(
    {"page", "pages", "size", "limit", "offset", "skip", "current", "perpage", "pagesize", "pageno"}
)
"""Beside one of these a `total` counts what there is, and is no sum of money."""
_MORE = frozenset({"hasmore", "hasnext", "hasnextpage"})
_NEXT = frozenset({"next", "nextlink", "odatanextlink", "nextpage", "nexturl", "nexthref"})
_CURSORS = frozenset({"nextcursor", "nexttoken", "nextpagetoken", "continuationtoken"})
_BESIDE = frozenset({"meta", "pagination", "page", "paging", "pageinfo", "links", "cursor"})
_SIZES = frozenset({"size", "limit", "perpage", "pagesize", "count", "top", "take", "first", "max"})
_LINK = re.compile(r"<([^>]*)>[^,]*;\s*rel=\"?next\"?")
_CURE = (
    "ask for all of it, such as by '?size=100000' in books.route, or page by page with {page}, "
    "{page0} or {offset} in it"
)


class RoutePage(NamedTuple):
    """One answer of a route."""

    status: int
    headers: Mapping[str, str]
    document: Any


def by_route(shop: ShopBooks) -> Select:
    """The lists of an answer; each route is asked once, so that what it tells is of one instant."""
    pages: dict[str, list[RoutePage]] = {}

    def select(asked: str) -> Found:
        path, _, pointer = asked.partition("#")
        if path not in pages:
            pages[path] = list(_pages(shop, path, pointer))
        return None, _objects(pages[path], path, pointer)

    return select


def _objects(pages: list[RoutePage], path: str, pointer: str) -> Iterator[Mapping[str, Any]]:
    """What stands at a pointer in all pages. Raises UnfitError where that is not all there is."""
    lists = [_list_at(page.document, path, pointer) for page in pages]
    # What is the same on each page is not what is told in pages.
    found = [each for n, some in enumerate(lists) if not n or some != lists[0] for each in some]
    for each in found:
        if not isinstance(each, dict):
            raise UnfitError(f"{pointer!r} holds {str(each)[:60]!r}, which is no object")
    is_list = isinstance(_at(pages[0].document, pointer), list)
    why = _lacks(pages, pointer, found) or _is_full(pages, path, pointer) if is_list else ""
    if why:
        raise UnfitError(f"{path} tells of {len(found):,} at {pointer!r}, and {why}; {_CURE}")
    return iter(found)


def _at(document: Any, pointer: str) -> Any:
    return document if pointer == "/" else at_pointer(document, pointer)


def _list_at(document: Any, path: str, pointer: str) -> list[Any]:
    found = _at(document, pointer)
    if isinstance(found, dict):
        return [found]
    if document is None:
        raise UnfitError(
            f"{path} answers with what is no JSON; see to books.route, and to who may ask there "
            "(books.headers)"
        )
    if found is ABSENT or not isinstance(found, list):
        has = ", ".join(map(str, document)) if isinstance(document, dict) else "no object"
        raise UnfitError(
            f"{pointer!r} is no list of objects in what {path} answers (it has {has[:200]}); "
            "say where they are by a pointer such as '/data/orders', or '/' for all of it"
        )
    return found


# Pages --------------------------------------------------------------------------------------------


def _pages(shop: ShopBooks, path: str, pointer: str) -> Iterator[RoutePage]:
    """Every page of a route: as it asks for them by itself, or as each says where the next is."""
    if any(name in path for name in PAGES):
        yield from _by_number(shop, path, pointer)
        return
    url = f"{shop.base_url.rstrip('/')}{path}"
    seen: set[str] = set()
    while url:
        if len(seen) == _PAGES_MAX:
            raise _endless(path)
        seen.add(url)
        told = _told(shop, url)
        yield told
        following = _next_of(told, pointer)
        if not following or not isinstance(_at(told.document, pointer), list):
            return
        try:
            here, there = urlsplit(url), urlsplit(urljoin(url, following))
        except ValueError as error:
            shown = one_line(following)[:80]
            raise UnfitError(f"{path} says that more is at {shown!r}, which is no URL") from error
        url = there._replace(scheme=here.scheme, netloc=here.netloc, fragment="").geturl()
        if url in seen:
            return


def _by_number(shop: ShopBooks, path: str, pointer: str) -> Iterator[RoutePage]:
    """Pages by their number, or by how many were told before, until one tells none."""
    count, before = 0, None
    for number in range(_PAGES_MAX):
        values = dict(zip(PAGES, (number + 1, number, count), strict=True))
        asked = path
        for name, value in values.items():
            asked = asked.replace(name, str(value))
        told = _told(shop, f"{shop.base_url.rstrip('/')}{asked}", may_lack=number > 0)
        listed = _list_at(told.document, asked, pointer) if told.status == 200 else []
        if listed and listed == before:
            raise UnfitError(f"{asked} answers as the page before it; see to what asks for pages")
        if listed or not number:
            yield told
        if not listed:
            return
        count, before = count + len(listed), listed
    raise _endless(path)


def _endless(path: str) -> UnfitError:
    return UnfitError(f"{path} has no end after {_PAGES_MAX:,} pages; ask for larger ones")


def _told(shop: ShopBooks, url: str, *, may_lack: bool = False) -> RoutePage:
    try:
        told = ask_once(
            url,
            total_s=_TIMEOUT_S,
            bytes_max=_BYTES_MAX,
            headers=dict(shop.books.headers),
            way=shop.way,
        )
    except UnansweredError as error:
        is_unknown = "CERTIFICATE_VERIFY_FAILED" in str(error)
        cure = "give the authority of its certificate with --ca, or --insecure to check none"
        raise UnreachableError(
            f"{url} cannot be read ({error}); {cure if is_unknown else 'check books.route'}"
        ) from error
    if told.status != 200 and not (may_lack and told.status == 404):
        raise UnreachableError(f"{url} answers {told.status}; check books.route and its headers")
    return RoutePage(told.status, told.headers, told.json())


# What an answer says of others --------------------------------------------------------------------


def _next_of(told: RoutePage, pointer: str) -> str:
    """Where the next page is, by a link; empty where none is told."""
    if link := _LINK.search(told.headers.get("link", "")):
        return link[1]
    for name, value in _said_of_pages(told.document, pointer):
        href = value.get("href") if isinstance(value, dict) else value
        if name in _NEXT and isinstance(href, str) and href.startswith(("/", "http", "?")):
            return href
    return ""


def _lacks(pages: list[RoutePage], pointer: str, found: list[Any]) -> str:
    """What says that there are more than these; empty where nothing does."""
    last = pages[-1]
    if _has_longer(last.document, pointer):
        return ""  # it is said of that one
    said = _said_of_pages(last.document, pointer)
    names = {name for name, _ in said}
    for name, value in said:
        is_total = name in _TOTALS or (name == "total" and names & _OF_PAGES)
        if is_total and type(value) is int and value > len(found):
            return f"says that there are {value:,}"
        is_cursor = name in _CURSORS or (name in _NEXT and not isinstance(value, dict))
        if len(pages) == 1 and ((name in _MORE and value is True) or (is_cursor and value)):
            return f"says that there are more ({name}: {str(value)[:40]})"
    counted = pages[-1].headers.get("x-total-count", "")
    is_count = counted.isascii() and counted.isdigit() and len(counted) < 19
    return f"says that there are {counted}" if is_count and int(counted) > len(found) else ""


def _is_full(pages: list[RoutePage], path: str, pointer: str) -> str:
    """What says that one answer may be cut off where it was asked to be; empty where nothing does,
    or where it says itself that it is not."""
    names = {name for name, _ in _said_of_pages(pages[0].document, pointer)}
    says_itself = names & (_TOTALS | _MORE | _NEXT | _CURSORS)
    if len(pages) > 1 or says_itself or any(name in path for name in PAGES):
        return ""
    count = len(_at(pages[0].document, pointer))
    for name, value in parse_qsl(urlsplit(path).query):
        if _plain(name) in _SIZES and value == str(count) and count > 1:
            return f"was asked for no more ({name}={value})"
    return ""


def _has_longer(document: Any, pointer: str) -> bool:
    """Whether another list stands beside this one, and is longer."""
    holder, listed = at_pointer(document, pointer.rpartition("/")[0]), _at(document, pointer)
    if pointer == "/" or not isinstance(holder, dict):
        return False
    return any(isinstance(it, list) and len(it) > len(listed) for it in holder.values())


def _said_of_pages(document: Any, pointer: str) -> list[tuple[str, Any]]:
    """What stands beside a list, or on the way to it, by plain names: `totalElements` and
    `total_elements` are one."""
    said: list[tuple[str, Any]] = []
    holders = [document]
    for part in pointer.split("/")[1:-1]:
        holders.append(at_pointer(holders[-1], f"/{part}"))
    for holder in holders:
        for name, value in holder.items() if isinstance(holder, dict) else ():
            plain = _plain(name)
            said.append((plain, value))
            if plain in _BESIDE and isinstance(value, dict):
                said += [(_plain(inner), each) for inner, each in value.items()]
            elif plain in _BESIDE and isinstance(value, list):
                links = [each for each in value if isinstance(each, dict)]
                said += [(_plain(each.get("rel")), each.get("href")) for each in links]
    return said


def _plain(name: object) -> str:
    return re.sub("[^a-z]", "", str(name).lower())
