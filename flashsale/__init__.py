"""Run a flash sale, storm it, and prove that nothing was oversold, sold twice or lost.

The public API is loaded name by name as it is asked for, so that `import flashsale` costs nothing.
`storm` and `verify` are packages; what runs them is called `run_storm` and `judge_run`.

    from flashsale import RehearsalRequest, StormRequest, load_scenario, rehearse

    exit_code = rehearse(RehearsalRequest(StormRequest(load_scenario("stampede"))))
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flashsale.campaign.campaign import Stores, Teller
    from flashsale.campaign.judging import judge_run
    from flashsale.campaign.rehearsal import RehearsalRequest, rehearse
    from flashsale.campaign.storming import StormRequest, run_storm
    from flashsale.run.summary import Summary
    from flashsale.scenario.scenario import load_scenario

__version__ = "0.1.0"
__all__ = [
    "RehearsalRequest",
    "Stores",
    "StormRequest",
    "Summary",
    "Teller",
    "__version__",
    "judge_run",
    "load_scenario",
    "rehearse",
    "run_storm",
]

_HOME = {
    "RehearsalRequest": "campaign.rehearsal",
    "StormRequest": "campaign.storming",
    "Stores": "campaign.campaign",
    "Summary": "run.summary",
    "Teller": "campaign.campaign",
    "judge_run": "campaign.judging",
    "load_scenario": "scenario.scenario",
    "rehearse": "campaign.rehearsal",
    "run_storm": "campaign.storming",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'flashsale' has no attribute {name!r}")
    return getattr(import_module(f"flashsale.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__
