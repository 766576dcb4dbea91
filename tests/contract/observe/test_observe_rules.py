"""Rules and alerts by Prometheus' own tool: well formed, firing when they should, and only then."""

import shutil
from pathlib import Path

import pytest
from rig.observers import fetched, promtool

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

PROMETHEUS = Path(__file__).resolve().parents[3] / "deploy" / "prometheus"


@pytest.fixture(autouse=True, scope="module")
def _tool() -> None:
    fetched()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy that a test may break."""
    return Path(shutil.copytree(PROMETHEUS, tmp_path / "prometheus"))


def test_the_configuration_is_well_formed() -> None:
    done = promtool("check", "config", PROMETHEUS / "prometheus.yml")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(b"SUCCESS") == 4
    assert b"rules.yml\n  SUCCESS" in done.stdout


def test_a_broken_rule_is_found(folder: Path) -> None:
    rules = folder / "rules.yml"
    rules.write_text(rules.read_text().replace("sum(rate(", "sum(rat(", 1))
    assert promtool("check", "config", folder / "prometheus.yml").returncode != 0


def test_every_alert_fires_when_it_should_and_only_then() -> None:
    done = promtool("test", "rules", "alerts_test.yml", cwd=PROMETHEUS)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("max(flashsale_sale_oversold_units) > 0", "max(flashsale_sale_oversold_units) > 99"),
        ('up{job="replica"} == 0', 'up{job="replica"} >= 0'),
    ],
    ids=["never fires", "always fires"],
)
def test_a_wrong_alert_is_found(folder: Path, right: str, wrong: str) -> None:
    alerts, cases = folder / "alerts.yml", folder / "alerts_test.yml"
    assert right in alerts.read_text()
    alerts.write_text(alerts.read_text().replace(right, wrong))
    head, _, _ = cases.read_text().partition("  - name: ErrorBudget")  # hours, and not asked here
    cases.write_text(head)
    done = promtool("test", "rules", "alerts_test.yml", cwd=folder)
    assert done.returncode != 0
