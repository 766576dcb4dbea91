"""The wheel: `flashsale` alone, with the scenarios and the deployment files that it reads."""

import os
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

ROOT = Path(__file__).resolve().parents[3]


def test_a_wheel_holds_the_package_alone(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path],
        cwd=ROOT,
        check=True,
        capture_output=True,
        timeout=60,
    )
    (wheel,) = tmp_path.glob("*.whl")
    with ZipFile(wheel) as archive:
        names = archive.namelist()
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"flashsale"}
    assert {"flashsale/scenarios/stampede.toml", "flashsale/deploy/nginx.conf.j2"} <= set(names)


def test_a_checkout_has_benchmarks_and_tools_beside_it(tmp_path: Path) -> None:
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    subprocess.run(
        [sys.executable, "-c", "import benchmarks, flashsale.cli, tools"],
        cwd=tmp_path,
        env=clean,
        check=True,
        timeout=60,
    )
