"""What brings a code to a phone: a function of somebody else's, named by a setting."""

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from pkgutil import resolve_name

import structlog

from flashsale.errors import Unavailable, UsageError
from flashsale.settings import LoginSettings

Sender = Callable[[str, str], Awaitable[None]]
"""Brings a code to a phone: (phone, code). What it raises means that the code did not go out."""

log = structlog.get_logger(__name__)


async def log_code(phone: str, code: str) -> None:
    """The development sender: the code goes to the log."""
    log.info("a code, logged for development", phone=phone, code=code)


def sender_for(settings: LoginSettings) -> Sender | None:
    """Where codes go by `settings`: to the log, to a sender, to both, or nowhere.

    Raises UsageError for a sender that is not there.
    """
    senders: list[Sender] = [log_code] if settings.log_codes else []
    if settings.sender:
        sender = load_sender(settings.sender)
        senders.append(bounded(sender, timeout_s=settings.sender_timeout_ms / 1000))
    if not senders:
        return None

    async def send(phone: str, code: str) -> None:
        for each in senders:
            await each(phone, code)

    return send


def load_sender(path: str) -> Sender:
    """The function that `path`, package.module:function, names.

    Raises UsageError where there is none, or it is not async.
    """
    problem = "expected package.module:function of an async function"
    try:
        sender: Sender = resolve_name(path)
    except (ValueError, ImportError, AttributeError) as error:
        raise UsageError(f"FLASHSALE_LOGIN_SENDER: {problem}; {error}") from error
    if not inspect.iscoroutinefunction(sender):
        raise UsageError(f"FLASHSALE_LOGIN_SENDER: {problem}, got {path!r}")
    return sender


def bounded(sender: Sender, *, timeout_s: float) -> Sender:
    """`sender` within a time, its failure a plain Unavailable."""

    async def send(phone: str, code: str) -> None:
        try:
            async with asyncio.timeout(timeout_s):
                await sender(phone, code)
        except Exception as error:
            log.exception("a code could not be sent")
            raise Unavailable("the code could not be sent") from error

    return send
