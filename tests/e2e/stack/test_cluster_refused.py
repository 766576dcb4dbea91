"""What does not know a ledger on a Redis Cluster says so in one line, exit 2, and asks nobody."""

from pathlib import Path

import pytest
from rig.command_line import run_flashsale

URL = "redis+cluster://owner:geheim@127.0.0.1:1"
MYSQL = ("--mysql-url", "mysql://a:b@127.0.0.1:1/shop")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("serve", "--cluster", "--ha"), "a cluster has replicas of its own"),
        (("rehearse", "stampede", "--cluster", "--ha"), "a cluster has replicas of its own"),
        (("rehearse", "stampede", "--durability", "replicated"), "add --ha or --cluster"),
        (("serve", "--cluster", "--ledger-url", "redis://127.0.0.1:1"), "leave --ledger-url out"),
        (("warm", "--ledger-url", URL, "--cache-url", URL, *MYSQL), "cluster"),
        (("replica", "--port", "1", "--ledger-url", f"{URL}/3"), "no database but 0"),
    ],
)
def test_one_line_and_exit_2(tmp_path: Path, words: tuple[str, ...], told: str) -> None:
    done = run_flashsale(tmp_path, *words)
    assert done.returncode == 2, done.stderr
    assert told in done.stderr
    assert "geheim" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / ".flashsale").exists()


def test_a_link_of_a_stack_reaches_a_node_and_no_cluster(tmp_path: Path) -> None:
    links = {"FLASHSALE_STACK_LINKS": '{"r1->ledger": 4711}', "FLASHSALE_LEDGER_LAYOUT": "cluster"}
    done = run_flashsale(tmp_path, "serve", **links)
    assert (done.returncode, "a link for each node" in done.stderr) == (2, True), done.stderr
