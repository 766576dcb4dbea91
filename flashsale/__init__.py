"""Run a flash sale, storm it, and prove that nothing was oversold, sold twice or lost.

The public API is loaded name by name as it is asked for, so that `import flashsale` costs nothing.
`storm` and `verify` are packages; what runs them is called `run_storm` and `verify_run`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flashsale.run.summary import Summary
    from flashsale.scenario.scenario import load_scenario
    from flashsale.storm.storm import storm as run_storm
    from flashsale.verify.verdict import examine as verify_run

__version__ = "0.1.0"
__all__ = ["Summary", "__version__", "load_scenario", "run_storm", "verify_run"]

_PUBLIC = {
    "Summary": ("flashsale.run.summary", "Summary"),
    "load_scenario": ("flashsale.scenario.scenario", "load_scenario"),
    "run_storm": ("flashsale.storm.storm", "storm"),
    "verify_run": ("flashsale.verify.verdict", "examine"),
}


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'flashsale' has no attribute {name!r}")
    module, attribute = _PUBLIC[name]
    return getattr(import_module(module), attribute)


def __dir__() -> list[str]:
    return __all__
