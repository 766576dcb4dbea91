"""A signal that comes when the storm is over and its reports are being written."""

import json
import os
import signal
from pathlib import Path

import pytest
from rig.scripted_sale import ScriptedSale, sell

from flashsale.campaign import storming
from flashsale.campaign.campaign import Teller
from flashsale.campaign.storming import StoppedError, StormRequest, run_storm
from flashsale.scenario.scenario import parse_scenario

SCENARIO = """schema = 1
name = "tiny"
[sale]
units = 5
[load]
model = "stampede"
users = 10
connections = 10
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_it_is_the_exit_code_and_the_run_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, code: int
) -> None:
    rows = "".join(f"{user},token-{user}\n" for user in range(1, 11))
    (tmp_path / "tokens.csv").write_text("user_id,token\n" + rows)
    write = storming.write_reports

    def interrupted(*given: object) -> None:
        os.kill(os.getpid(), number)
        write(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(storming, "write_reports", interrupted)
    with ScriptedSale(sell(units=5)).open() as sale, pytest.raises(StoppedError) as ended:
        run_storm(
            StormRequest(
                scenario=parse_scenario(SCENARIO, "tiny"),
                base_url=sale.base_url,
                tokens=tmp_path / "tokens.csv",
                out=tmp_path / "run",
                calibrate=False,
                verify_awaited=True,
            ),
            Teller(),
        )
    assert ended.value.exit_code == code
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert (summary["verdict"], summary["exit_code"]) == ("unknown", 8), "nobody has verified it"
    assert (tmp_path / "run" / "report.html").stat().st_size > 1_000_000
