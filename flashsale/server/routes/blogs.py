"""Blogs: everybody reads, users like."""

from dataclasses import dataclass

from flashsale.accounts import holder
from flashsale.catalog.blog import Blogs
from flashsale.model import parse_id
from flashsale.server.answers import BAD_ID, Response, ok, rejected
from flashsale.server.cached import answered, listed
from flashsale.server.caller import Callers
from flashsale.server.query import Query
from flashsale.server.request import Request
from flashsale.server.router import Router

_NO_BLOG = rejected("Blog does not exist", 404)


@dataclass(frozen=True)
class BlogRoutes:
    """Everything under /blog."""

    callers: Callers
    blogs: Blogs

    def mount(self, router: Router) -> None:
        """Add the routes."""
        router.add("GET", "/blog/hot", self.callers.anybody(self.hot))
        router.add("GET", "/blog/{id}", self.callers.anybody(self.blog))
        router.add("PUT", "/blog/like/{id}", self.callers.signed_in(self.like))

    async def hot(self, request: Request, segment: str) -> Response:
        """A page of the most liked blogs."""
        return listed(await self.blogs.hot(Query(request).page(), holder.held()))

    async def blog(self, request: Request, segment: str) -> Response:
        """One blog."""
        blog_id = parse_id(segment)
        if blog_id is None:
            return BAD_ID
        body, source = await self.blogs.read(blog_id, holder.held())
        return answered(body, source, _NO_BLOG)

    async def like(self, request: Request, segment: str) -> Response:
        """Like it; the second time, no longer."""
        blog_id = parse_id(segment)
        if blog_id is None:
            return BAD_ID
        return ok() if await self.blogs.like(blog_id, holder.current()) else _NO_BLOG
