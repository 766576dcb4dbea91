"""Scrolling through a feed: every blog once, whatever shares its time."""

from hypothesis import given
from hypothesis import strategies as st

from flashsale.catalog.indexes import IndexMember
from flashsale.catalog.people import page_of, scroll_of

members = st.dictionaries(st.integers(1, 200), st.integers(1, 9), max_size=60).map(
    lambda found: [IndexMember(blog, at) for blog, at in found.items()]
)


@given(members)
def test_each_is_shown_once_the_newest_first(feed: list[IndexMember]) -> None:
    shown: list[int] = []
    last_ms, offset = 10**15, 0
    while page := page_of(feed, last_ms, offset):
        scroll = scroll_of(page, last_ms, offset)
        shown += scroll.blog_ids
        last_ms, offset = scroll.min_ms, scroll.offset
        assert len(shown) <= len(feed)
    at = {member.id: member.score for member in feed}
    assert sorted(shown) == sorted(at)
    assert [at[blog] for blog in shown] == sorted(at.values(), reverse=True)
