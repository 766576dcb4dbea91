"""What the parts could do at best: the bare answer, nginx alone, one EVALSHA a claim."""

import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from benchmarks.bare import bare_server
from benchmarks.cpu import CpuMeter
from benchmarks.null_target import null_target
from benchmarks.table import Section, spread
from flashsale import keys
from flashsale.lua.scripts import script
from flashsale.stack.binaries import REDIS, find
from flashsale.stack.redis import RedisRole, RedisServer
from flashsale.storage.roles import sync_client

CLAIMS = 50_000
_FAR_OFF_MS = 4_102_444_800_000


def measure(runs: int) -> Section:
    """wrk on the bare answer and on nginx `return 200`; redis-benchmark on seckill.lua."""
    section = Section("peers: what each part could do alone")
    if shutil.which("wrk"):
        _add_http(section, runs)
    else:
        section.notes.append("wrk is not installed, so the HTTP peers are left out")
    rates = [_one_script_a_claim() for _ in range(runs)]
    section.add("redis-benchmark, one EVALSHA a claim, 50 clients, fsync always, /s", spread(rates))
    return section


def _add_http(section: Section, runs: int) -> None:
    with bare_server() as bare, null_target() as null:
        for what, url, pid in (
            ("bare ASGI answer", bare.url, bare.pid),
            ("nginx return 200", null.url, null.pid),
        ):
            figures = [_wrk(url, pid) for _ in range(runs)]
            section.add(f"{what}, requests/s", spread([rate for rate, _ in figures]))
            section.add(f"{what}, CPU µs a request", spread([cpu for _, cpu in figures], 1))


def _wrk(url: str, pid: int) -> tuple[float, float]:
    """Requests a second, and the server's CPU µs for each."""
    meter = CpuMeter({"server": [pid]})
    said = subprocess.run(
        ["wrk", "-t1", "-c200", "-d4s", url], capture_output=True, text=True, check=True
    ).stdout
    requests = int(re.findall(r"(\d+) requests in", said)[0])
    rate = float(re.findall(r"Requests/sec:\s+([\d.]+)", said)[0])
    return rate, meter.used_s()["server"] / requests * 1e6


def _one_script_a_claim() -> float:
    """Claims a second when every claim is an EVALSHA of its own."""
    with (
        tempfile.TemporaryDirectory(prefix="flashsale-bench-") as folder,
        RedisServer(RedisRole.LEDGER, Path(folder)) as server,
    ):
        client = sync_client(server.url)
        seckill = script("seckill")
        client.script_load(seckill.text)
        client.set(keys.seckill_stock(1), CLAIMS)
        client.hset(keys.seckill_sale(1), mapping={"begin": 0, "end": _FAR_OFF_MS, "state": "open"})
        binary = find(REDIS)
        names = [
            keys.seckill_stock(1),
            keys.seckill_order(1),
            keys.seckill_receipt(1),
            keys.seckill_sale(1),
            keys.STREAM_ORDERS,
        ]
        claim = [*names, "1", str(_FAR_OFF_MS), "__rand_int__", "__rand_int__"]
        port = str(client.connection_pool.connection_kwargs["port"])
        said = subprocess.run(
            [
                *(binary.path.with_name("redis-benchmark"), "-p", port, "-q"),
                *("-n", str(CLAIMS), "-r", "1000000000"),
                *("EVALSHA", seckill.sha, "5", *claim),
            ],
            env=binary.environment(),
            capture_output=True,
            text=True,
            check=True,
        ).stdout
    return float(re.findall(r"([\d.]+) requests per second", said)[-1])
