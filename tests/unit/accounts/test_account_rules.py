"""Phones, budgets' owners, senders, and the user of a request: what needs no store."""

import asyncio
import sys
from types import ModuleType

import pytest
import structlog

from flashsale.accounts.login import (
    bounded,
    is_phone,
    load_sender,
    log_code,
    sender_for,
    subscriber,
)
from flashsale.errors import Unavailable, UsageError
from flashsale.settings import LoginSettings


@pytest.mark.parametrize("phone", ["13800000001", "19999999999", "10000000000"])
def test_phones(phone: str) -> None:
    assert is_phone(phone)


@pytest.mark.parametrize(
    "text", ["", "23800000001", "1380000000", "138000000012", "1380000000a", "１3800000001", "-3"]
)
def test_no_phones(text: str) -> None:
    assert not is_phone(text)


@pytest.mark.parametrize(
    ("address", "owner"),
    [
        ("203.0.113.7", "203.0.113.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
        ("2001:db8:1:2:ffff::1", "2001:db8:1:2::"),
        ("2001:db8:1:3::1", "2001:db8:1:3::"),
        ("unknown", "unknown"),
    ],
)
def test_a_budget_is_a_subscribers(address: str, owner: str) -> None:
    assert subscriber(address) == owner


@pytest.fixture
def plugin(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    module = ModuleType("sms_plugin")
    monkeypatch.setitem(sys.modules, "sms_plugin", module)
    return module


@pytest.mark.anyio
async def test_a_sender_is_loaded_by_name(plugin: ModuleType) -> None:
    sent = []

    async def send(phone: str, code: str) -> None:
        sent.append((phone, code))

    plugin.send = send  # type: ignore[attr-defined]
    await load_sender("sms_plugin:send")("13800000001", "000000")
    assert sent == [("13800000001", "000000")]


@pytest.mark.parametrize(
    "path", ["", "sms_plugin", ":send", "sms_plugin:", "sms_plugin:nothing", "no_such_module:send"]
)
def test_a_sender_that_is_not_there(plugin: ModuleType, path: str) -> None:
    with pytest.raises(UsageError, match="FLASHSALE_LOGIN_SENDER"):
        load_sender(path)


def test_a_sender_that_would_block_is_refused(plugin: ModuleType) -> None:
    plugin.send = lambda phone, code: None  # type: ignore[attr-defined]
    with pytest.raises(UsageError, match="async"):
        load_sender("sms_plugin:send")


@pytest.mark.anyio
async def test_a_senders_trouble_is_unavailable() -> None:
    async def broken(phone: str, code: str) -> None:
        raise ValueError("no credit")

    async def slow(phone: str, code: str) -> None:
        await asyncio.sleep(60)

    with structlog.testing.capture_logs() as logs:
        for sender in (broken, slow):
            with pytest.raises(Unavailable):
                await bounded(sender, timeout_s=0.01)("13800000001", "123456")
    assert "123456" not in str(logs)


@pytest.mark.anyio
async def test_the_development_sender_logs() -> None:
    with structlog.testing.capture_logs() as logs:
        await log_code("13800000001", "123456")
    assert [(line["phone"], line["code"]) for line in logs] == [("13800000001", "123456")]


@pytest.mark.anyio
async def test_codes_go_where_the_settings_say(plugin: ModuleType) -> None:
    sent = []

    async def send(phone: str, code: str) -> None:
        sent.append(code)

    plugin.send = send  # type: ignore[attr-defined]
    assert sender_for(LoginSettings()) is None
    both = sender_for(LoginSettings(log_codes=True, sender="sms_plugin:send"))
    assert both is not None
    with structlog.testing.capture_logs() as logs:
        await both("13800000001", "123456")
    assert (sent, [line["code"] for line in logs]) == (["123456"], ["123456"])
