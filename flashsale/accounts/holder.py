"""The user of the request at hand, for whatever serves it: a context variable.

Every request runs in a task of its own, so what one holds no other sees. A claim has no user here:
the ledger's script is the only one that learns who is behind its session.
"""

from contextvars import ContextVar

_user_id: ContextVar[int | None] = ContextVar("user_id", default=None)


def hold(user_id: int) -> None:
    """Make `user_id` the user of this request."""
    _user_id.set(user_id)


def held() -> int | None:
    """The user of this request, None where nobody signed in."""
    return _user_id.get()


def current() -> int:
    """The user of this request. Raises LookupError where nobody signed in."""
    user_id = _user_id.get()
    if user_id is None:
        raise LookupError("this request has no user")
    return user_id
