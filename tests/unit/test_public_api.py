"""`import flashsale`: what the package offers to others, and that it costs nothing until asked."""

import subprocess
import sys

import pytest

import flashsale


@pytest.mark.parametrize("name", flashsale.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(flashsale, name)
    assert name in dir(flashsale)


def test_public_names_are_the_librarys_own() -> None:
    from flashsale.campaign.rehearsal import rehearse
    from flashsale.scenario.scenario import load_scenario

    assert flashsale.load_scenario is load_scenario
    assert flashsale.rehearse is rehearse
    assert flashsale.load_scenario("stampede").name == "stampede"


def test_what_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'load_scenarios'"):
        flashsale.load_scenarios  # noqa: B018


def test_importing_the_package_loads_nothing_else() -> None:
    code = (
        "import sys; before = set(sys.modules); import flashsale; print(set(sys.modules) - before)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {name.strip("{' }\n") for name in done.stdout.split(",")}
    assert {
        name for name in loaded if name.partition(".")[0] in ("pydantic", "httpx", "orjson")
    } == set()
    assert "flashsale" in loaded
    assert not {name for name in loaded if name.startswith("flashsale.")}


def test_a_storm_loads_nothing_that_serves_or_writes_rows() -> None:
    """It starts often, and SQLAlchemy with the HTTP server took two fifths of that."""
    code = "import sys; import flashsale.cli.storm; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    dear = ("sqlalchemy", "plotly", "flashsale.server", "flashsale.orders", "flashsale.seckill")
    assert [name for name in done.stdout.split() if name.startswith(dear)] == []
