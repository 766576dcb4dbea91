"""Signing in: a phone, a code that works once, a session.

Nothing before the right code looks at who has an account, so neither an answer nor its time
tells whether a phone is known.
"""

import secrets

import structlog
from sqlalchemy import Connection, insert, select

from flashsale import keys
from flashsale.accounts.budget import Budget, Budgets, Wait, subscriber
from flashsale.accounts.sender import Sender
from flashsale.errors import Indeterminate, Unavailable
from flashsale.lua.scripts import script
from flashsale.settings import LoginSettings, SessionSettings
from flashsale.storage.channel import Call, Channel
from flashsale.storage.mysql import Database, Duplicate
from flashsale.storage.tables import user

log = structlog.get_logger(__name__)
_CHECK = script("code_check")
_PHONE_DIGITS = 11


def is_phone(text: str) -> bool:
    """True for a mobile number as the family has them: 11 digits, the first a 1."""
    return len(text) == _PHONE_DIGITS and text.isascii() and text.isdigit() and text[0] == "1"


class Login:
    """Phone codes and the sessions they open. Every call may raise Unavailable, Indeterminate."""

    def __init__(
        self,
        database: Database,
        ledger: Channel,
        settings: LoginSettings,
        sessions: SessionSettings,
        sender: Sender | None = None,
    ) -> None:
        self._database = database
        self._ledger = ledger
        self._settings = settings
        self._budgets = Budgets(ledger, window_s=settings.budget_window_s)
        self._lifetime_ms = sessions.lifetime_minutes * 60_000
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
        key = keys.login_code(phone)
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
        user_id, nick_name, icon = await self._find_or_create(phone)
        token = secrets.token_hex(16)
        key = keys.login_token(token)
        await self._ledger.ask_all(
            [
                ("MULTI",),
                ("HSET", key, "id", user_id, "nickName", nick_name, "icon", icon),
                ("PEXPIRE", key, self._lifetime_ms),
                ("EXEC",),
            ]
        )
        return token

    async def sign_out(self, token: str) -> None:
        """End the session behind `token`."""
        await self._ledger.ask("DEL", keys.login_token(token))

    async def user(self, token: str) -> dict[str, object] | None:
        """The family's user object: id, nickName, icon; None without a session."""
        key = keys.login_token(token)
        user_id, nick_name, icon = await self._ledger.ask("HMGET", key, "id", "nickName", "icon")
        if user_id is None:
            return None
        return {"id": int(user_id), "nickName": nick_name or "", "icon": icon or ""}

    async def _is_right(self, phone: str, code: str) -> bool:
        call = Call(_CHECK, (keys.login_code(phone),), (code, self._settings.tries_max))
        reply = (await self._ledger.run([call]))[0]
        if isinstance(reply, (Unavailable, Indeterminate)):
            raise reply
        return bool(reply == 1)

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
