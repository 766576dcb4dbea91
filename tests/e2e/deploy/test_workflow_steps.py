"""The sample workflow's commands, one after another, on stores that are there already."""

from pathlib import Path

import pytest
from rig.command_line import run_flashsale
from rig.workflow import commands, job, load

pytestmark = pytest.mark.slow


def test_the_commands_do_what_the_workflow_wants(
    tmp_path: Path, ledger_url: str, cache_url: str, blank_mysql_url: str
) -> None:
    workflow = load()
    stores = {
        "FLASHSALE_LEDGER_URL": ledger_url,
        "FLASHSALE_CACHE_URL": cache_url,
        "FLASHSALE_MYSQL_URL": blank_mysql_url,
    }
    assert stores.keys() == {name for name in job(workflow)["env"] if name.startswith("FLASH")}
    codes = {}
    for words in commands(workflow, "flashsale"):
        done = run_flashsale(tmp_path, *words, **stores)
        codes[words[0]] = done.returncode
        assert done.returncode == 0 or words[0] == "doctor", (words, done.stdout, done.stderr)
    assert list(codes) == ["doctor", "serve", "seed", "warm", "storm", "verify", "stop"]
    run = tmp_path / job(workflow)["env"]["RUN"]
    assert {"junit.xml", "summary.json", "verify.json"} <= {path.name for path in run.iterdir()}
    assert (tmp_path / ".flashsale" / "logs").is_dir()
