"""Settings: given, else the environment, else the default; a wrong one is one line."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from pydantic import ValidationError
from pydantic.fields import FieldInfo

from flashsale import settings
from flashsale.errors import UsageError
from flashsale.settings import (
    ClaimSettings,
    LedgerSettings,
    LifecycleSettings,
    OperatorSettings,
    Settings,
    StoreSettings,
    WorkerSettings,
)
from flashsale.stack.settings import StackSettings


def test_given_outranks_environment_outranks_default(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ClaimSettings.load().timeout_ms == 2000
    monkeypatch.setenv("FLASHSALE_CLAIM_TIMEOUT_MS", "300")
    assert ClaimSettings.load().timeout_ms == 300
    assert ClaimSettings.load(timeout_ms=None).timeout_ms == 300, "None is not given"
    assert ClaimSettings.load(timeout_ms=400).timeout_ms == 400


def test_frozen() -> None:
    with pytest.raises(ValidationError):
        ClaimSettings.load().timeout_ms = 1  # type: ignore[misc]


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("FLASHSALE_CLAIM_BATCH_MAX", "0", "0"),
        ("FLASHSALE_CLAIM_BATCH_MAX", "2001", "2001"),
        ("FLASHSALE_CLAIM_BATCH_MAX", "many", "many"),
        ("FLASHSALE_CLAIM_CLOCK_INTERVAL_S", "0", "0"),
        ("FLASHSALE_CLAIM_TIMEOUT_MS", "-5", "-5"),
    ],
)
def test_a_wrong_value_names_the_variable_and_what_was_found(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, told: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(UsageError) as raised:
        ClaimSettings.load()
    message = str(raised.value)
    assert message.startswith(name)
    assert told in message
    assert "\n" not in message


@pytest.mark.parametrize("text", ["no json", '{"r1->ledger"}', '{"10.0.0.1": "127.0.0.1:1"}'])
def test_what_ought_to_be_json_is_one_line_where_it_is_not(
    monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setenv("FLASHSALE_LEDGER_ADDRESSES", text)
    with pytest.raises(UsageError, match=r"(?i)^FLASHSALE_LEDGER_.*addresses") as raised:
        LedgerSettings.load()
    assert "\n" not in str(raised.value)


ALL = [*settings._COMPONENTS, StackSettings]
NUMBERS = [
    (component, name, field)
    for component in ALL
    for name, field in component.model_fields.items()
    if field.annotation in (int, float)
]


@pytest.mark.parametrize(
    ("component", "name", "field"), NUMBERS, ids=[f"{c.__name__}.{n}" for c, n, _ in NUMBERS]
)
def test_every_number_has_bounds_that_hold(
    component: type[Settings], name: str, field: FieldInfo
) -> None:
    bounds = {type(bound).__name__ for bound in field.metadata}
    assert bounds & {"Ge", "Gt"}
    assert bounds & {"Le", "Lt"}
    for wild in (70_000_000_000_000, float("inf"), float("nan"), -1):
        with pytest.raises(UsageError):
            component.load(**{name: wild})


def test_the_longest_time_is_one_that_the_sweeper_can_reckon_with() -> None:
    longest = LifecycleSettings.load(unpaid_timeout_s=315_360_000)
    assert datetime.now(UTC) - timedelta(seconds=longest.unpaid_timeout_s) > datetime(
        2000, 1, 1, tzinfo=UTC
    )


def test_a_missing_store_is_named() -> None:
    with pytest.raises(UsageError, match="FLASHSALE_LEDGER_URL is not set"):
        StoreSettings.load()


def test_a_setting_nobody_knows_is_an_error() -> None:
    with pytest.raises(UsageError):
        StoreSettings.load(ledger_url="x", cache_url="x", mysql_url="x", nonsense=1)


def test_a_secret_comes_from_its_file_unless_it_is_given(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "token").write_text("sixteen-characters\n")
    monkeypatch.setenv("FLASHSALE_OPERATOR_TOKEN_FILE", str(tmp_path / "token"))
    assert OperatorSettings.load().token.get_secret_value() == "sixteen-characters"
    monkeypatch.setenv("FLASHSALE_OPERATOR_TOKEN", "another")
    assert OperatorSettings.load().token.get_secret_value() == "another"


def test_what_is_no_secret_comes_from_no_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "timeout").write_text("300")
    monkeypatch.setenv("FLASHSALE_CLAIM_TIMEOUT_MS_FILE", str(tmp_path / "timeout"))
    assert ClaimSettings.load().timeout_ms == 2000


def test_the_watchdog_renews_in_time() -> None:
    """The lease has time for two more tries (locks/batch.py)."""
    defaults = WorkerSettings.load()
    assert defaults.lock_renew_ms * 3 <= defaults.lock_lease_ms
    assert defaults.claim_idle_ms > defaults.lock_lease_ms, "a living holder is not robbed"


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    for name in [name for name in os.environ if name.startswith("FLASHSALE_")]:
        monkeypatch.delenv(name)


def test_every_component_is_looked_at_before_a_stack_starts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looked_at = set(settings._COMPONENTS)
    ours = {kind for kind in vars(settings).values() if _is_a_component(kind)}
    assert looked_at == ours
    settings.check_environment()
    monkeypatch.setenv("FLASHSALE_CLAIM_TIMEOUT_MS", "soon")
    with pytest.raises(UsageError, match=r"FLASHSALE_CLAIM_TIMEOUT_MS: .*'soon'"):
        settings.check_environment()


def _is_a_component(kind: object) -> bool:
    return (
        isinstance(kind, type)
        and issubclass(kind, settings.Settings)
        and kind not in (settings.Settings, settings.StoreSettings)
    )
