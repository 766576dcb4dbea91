"""The stack's settings: refused with the field's name, and told truly by the help."""

import re

import pytest
from typer.testing import CliRunner

from flashsale.cli.tree import tree
from flashsale.errors import UsageError
from flashsale.stack.settings import StackSettings


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("port", 65_536),
        ("port", -1),
        ("port", "http"),
        ("replicas", 0),
        ("workers", 65),
        ("probe_interval_s", 0),
        ("log_bytes_max", 1),
    ],
)
def test_a_wrong_value_names_its_field(field: str, value: object) -> None:
    with pytest.raises(UsageError, match=f"FLASHSALE_STACK_{field.upper()}") as error:
        StackSettings.load(**{field: value})
    assert "\n" not in str(error.value)


def test_the_environment_is_heard_and_an_option_outranks_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FLASHSALE_STACK_REPLICAS", "5")
    assert StackSettings.load(replicas=None).replicas == 5
    assert StackSettings.load(replicas=2).replicas == 2


def test_every_setting_has_its_line_of_meaning() -> None:
    assert all(field.description for field in StackSettings.model_fields.values())


def test_the_help_of_serve_tells_the_real_defaults() -> None:
    told = CliRunner().invoke(tree(), ["serve", "--help"], env={"COLUMNS": "200"}).output
    defaults = StackSettings()
    for option, default in {
        "--port": defaults.port,
        "--host": defaults.host,
        "--replicas": defaults.replicas,
        "--workers": defaults.workers,
        "--probe-interval": f"{defaults.probe_interval_s:g}",
    }.items():
        assert re.search(rf"{option}\b[^\n]*\[default: \(?{re.escape(str(default))}\)?\]", told), (
            option
        )
