"""Signing in: a phone, a code that works once, a session.

Nothing before the right code looks at who has an account, so neither an answer nor its time
tells whether a phone is known. How often a phone or an address may ask is bounded by budgets;
what brings a code to a phone is a function of somebody else's, named by a setting.
"""

import asyncio
import inspect
import math
import secrets
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address, ip_network
from pkgutil import resolve_name

import structlog
from sqlalchemy import Connection, insert, select

from flashsale.accounts.sessions import Owner, creation, draw_token
from flashsale.errors import Unavailable, UsageError
from flashsale.lua.scripts import Call, script
from flashsale.settings import LoginSettings, SessionSettings
from flashsale.storage.lanes import LedgerChannel
from flashsale.storage.mysql import Database, Duplicate
from flashsale.storage.tables import user

log = structlog.get_logger(__name__)

_TAKE = script("budget_take")
_CHECK = script("code_check")
_IPV6_PREFIX = 64  # what one subscriber is given; single addresses inside it cost nothing
_PHONE_DIGITS = 11

Sender = Callable[[str, str], Awaitable[None]]
"""Brings a code to a phone: (phone, code). What it raises means that the code did not go out."""


@dataclass(frozen=True, slots=True)
class Wait:
    """A budget is spent: the answer instead of what was asked for."""

    seconds: int


@dataclass(frozen=True, slots=True)
class Budget:
    """At most `limit` times `what` by `whose`, in one window."""

    what: str
    whose: str
    limit: int


class Budgets:
    """Takes from several budgets at once, or from none of them."""

    def __init__(self, ledger: LedgerChannel, *, window_s: int) -> None:
        self._ledger = ledger
        self._window_s = window_s

    def __repr__(self) -> str:
        return f"<Budgets window={self._window_s} s>"

    async def take(self, budgets: Sequence[Budget]) -> Wait | None:
        """One from each of `budgets`; a Wait where one is spent. Raises Unavailable, Indeterminate.

        The window begins with the first take, so at its edge twice the limit can pass.
        """
        names = [
            self._ledger.layout.home.login_budget(budget.what, budget.whose) for budget in budgets
        ]
        limits = [budget.limit for budget in budgets]
        reply = await self._ledger.evaluate(Call(_TAKE, names, (self._window_s * 1000, *limits)))
        return Wait(math.ceil(reply / 1000)) if reply else None


def subscriber(address: str) -> str:
    """Whose budget `address` draws on: an IPv6 address stands for its whole /64. Pure."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return address
    if isinstance(parsed, IPv6Address):
        return str(ip_network((parsed, _IPV6_PREFIX), strict=False).network_address)
    return address


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


def is_phone(text: str) -> bool:
    """True for a mobile number as the family has them: 11 digits, the first a 1."""
    return len(text) == _PHONE_DIGITS and text.isascii() and text.isdigit() and text[0] == "1"


class Login:
    """Phone codes and the sessions they open. Every call may raise Unavailable, Indeterminate."""

    def __init__(
        self,
        database: Database,
        ledger: LedgerChannel,
        settings: LoginSettings,
        sessions: SessionSettings,
        sender: Sender | None = None,
    ) -> None:
        self._database = database
        self._ledger = ledger
        self._settings = settings
        self._budgets = Budgets(ledger, window_s=settings.budget_window_s)
        self._sessions = sessions
        self._sender = sender

    def __repr__(self) -> str:
        return f"<Login {self._settings!r}>"

    async def send_code(self, phone: str, address: str | None = None) -> Wait | None:
        """Make a code of six digits for `phone` and send it; an earlier one is void.

        A Wait, and no code, where the phone or the address that asks has had its share. Who asks
        from no address draws on the phone's budget alone.
        """
        budgets = [Budget("phone", phone, self._settings.phone_codes_max)]
        if address is not None:
            limit = self._settings.address_codes_max
            budgets.append(Budget("address", subscriber(address), limit))
        wait = await self._budgets.take(budgets)
        if wait is not None:
            return wait
        code = f"{secrets.randbelow(10**6):06}"
        key = self._ledger.layout.home.login_code(phone)
        await self._ledger.ask_all(
            [
                ("MULTI",),
                ("DEL", key),
                ("HSET", key, "code", code, "tries", 0),
                ("EXPIRE", key, self._settings.code_lifetime_s),
                ("EXEC",),
            ]
        )
        if self._sender is None:
            log.warning("a code reaches nobody: set FLASHSALE_LOGIN_SENDER, or _LOG_CODES")
        else:
            await self._sender(phone, code)
        return None

    async def sign_in(self, phone: str, code: str, address: str | None = None) -> str | Wait | None:
        """The token of a new session; None for a wrong code. A new phone becomes a new user.

        A Wait, and no look at the code, for an address that has tried too many.
        """
        if address is not None:
            limit = self._settings.address_tries_max
            wait = await self._budgets.take([Budget("tries", subscriber(address), limit)])
            if wait is not None:
                return wait
        if not await self._is_right(phone, code):
            return None
        owner = Owner(*await self._find_or_create(phone))
        token = draw_token(self._ledger.layout, owner.user_id)
        call = creation([token], [owner], self._sessions, self._ledger.layout)
        leaving = await self._ledger.evaluate(call)
        if leaving:
            await self._ledger.ask("DEL", *leaving)
        return token

    async def sign_out(self, token: str, user_id: int) -> None:
        """End the session behind `token`, which is that user's."""
        await self._end(user_id, [self._key(token)])

    async def sign_out_everywhere(self, token: str, user_id: int) -> None:
        """End every session of the user behind `token`, that one among them."""
        sessions = self._ledger.layout.of_user(user_id).login_sessions(user_id)
        held = await self._ledger.ask("ZRANGE", sessions, 0, -1)
        await self._end(user_id, [self._key(token), *held])

    def _key(self, token: str) -> str:
        return self._ledger.layout.of_token(token).login_token(token)

    async def _end(self, user_id: int, sessions: Sequence[str]) -> None:
        held = self._ledger.layout.of_user(user_id).login_sessions(user_id)
        await self._ledger.ask_all(
            [
                ("MULTI",),
                ("DEL", *sessions),
                ("ZREM", held, *sessions),
                ("EXEC",),
            ]
        )

    async def user(self, token: str) -> dict[str, object] | None:
        """The family's user object: id, nickName, icon; None without a session."""
        key = self._key(token)
        user_id, nick_name, icon = await self._ledger.ask("HMGET", key, "id", "nickName", "icon")
        if user_id is None:
            return None
        return {"id": int(user_id), "nickName": nick_name or "", "icon": icon or ""}

    async def _is_right(self, phone: str, code: str) -> bool:
        call = Call(
            _CHECK, (self._ledger.layout.home.login_code(phone),), (code, self._settings.tries_max)
        )
        return bool(await self._ledger.evaluate(call) == 1)

    async def _find_or_create(self, phone: str) -> tuple[int, str, str]:
        found = await self._database.run(lambda connection: _find(connection, phone))
        if found is None:
            nick_name = f"user_{secrets.token_hex(5)}"
            try:
                await self._database.run(
                    lambda connection: connection.execute(
                        insert(user).values(phone=phone, nick_name=nick_name)
                    )
                )
            except Duplicate:  # the same phone signed in twice at once; either row is the user
                log.info("a user was created twice at once")
            found = await self._database.run(lambda connection: _find(connection, phone))
        if found is None:
            raise Unavailable("the user that was just created is gone")
        return found


def _find(connection: Connection, phone: str) -> tuple[int, str, str] | None:
    row = connection.execute(
        select(user.c.id, user.c.nick_name, user.c.icon).where(user.c.phone == phone)
    ).first()
    return None if row is None else (row.id, row.nick_name, row.icon)
