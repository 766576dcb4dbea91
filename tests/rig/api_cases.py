"""What schemathesis makes of a replica's description, sent to it, each answer held to that."""

import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

HOOKS = Path(__file__).with_name("api_hooks.py")

OPERATOR = "the operator of the tests"
USER = 1
"""Who calls, with the token `token-1`."""

_CONFIG = f"""
request-timeout = 20.0
max-failures = 20
suppress-health-check = ["filter_too_much", "too_slow"]
hooks = "{HOOKS}"

[generation]
database = "none"

[auth.openapi]
session = {{ api_key = "token-{USER}" }}
operator = {{ api_key = "{OPERATOR}" }}

# Shed, out of reach, not known: 503 is an answer. No other 5xx is.
[checks.not_a_server_error]
expected-statuses = ["2xx", "4xx", 503]

# Half of the ids are there.
[dictionaries.ids]
values = [1, 2, 3]

[parameters]
"path.id" = {{ dictionary = "ids", probability = 0.5 }}
"path.shopId" = {{ dictionary = "ids", probability = 0.5 }}
"path.voucherId" = {{ dictionary = "ids", probability = 0.5 }}

# What OpenAPI cannot say: x and y come both or not at all, and a sale ends after it begins.
[[operations]]
include-path = ["/shop/of/type", "/voucher/seckill"]
checks.positive_data_acceptance.enabled = false
"""


class Sent(NamedTuple):
    """How many cases there were, whether all were answered as described, and what is told of it."""

    cases: int
    passed: bool
    told: str


def send_cases(
    folder: Path,
    document_url: str,
    *options: str,
    examples: int,
    timeout_s: float = 3_000,
) -> Sent:
    """Send what follows from the bounds of every route, and `examples` random cases to each."""
    config = folder / "schemathesis.toml"
    config.write_text(_CONFIG)
    command = [sys.executable, "-m", "schemathesis.cli", "--config-file", str(config), "run"]
    command += [document_url, "--max-examples", str(examples), "--no-color"]
    command += ["--phases", "coverage,fuzzing", "--continue-on-failure", *options]
    ended = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=timeout_s, check=False
    )
    told = ended.stdout + ended.stderr
    found = re.search(r"^ +(\d+) generated", told, re.MULTILINE)
    return Sent(int(found[1]) if found else 0, ended.returncode == 0, told)
