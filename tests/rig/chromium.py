"""Chromium: on PATH, else Debian's own packages, unpacked for this user without root."""

import fcntl
import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from flashsale.stack.binaries import services_dir, services_tree
from flashsale.stack.packages import Apt

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
_PACKAGES = ("^chromium$", "^chromium-common$", "^fontconfig-config$", "^fonts-liberation$")
"""Wanted in the tree whatever the system has of them; apt adds what they need and it lacks."""

_FONTS = """<?xml version="1.0"?>
<!DOCTYPE fontconfig SYSTEM "fonts.dtd">
<fontconfig>
  <dir>{tree}/usr/share/fonts</dir>
  <dir>/usr/share/fonts</dir>
  <cachedir>{tree}/fontconfig-cache</cachedir>
  <alias><family>sans-serif</family><prefer><family>Liberation Sans</family></prefer></alias>
</fontconfig>
"""


@dataclass(frozen=True)
class Chromium:
    """A program, and the environment that it runs in."""

    path: Path
    environment: dict[str, str]

    def runs(self) -> bool:
        """Whether it starts at all."""
        done = subprocess.run(
            [self.path, "--version"], env=self.environment, capture_output=True, check=False
        )
        return done.returncode == 0


def chromium() -> Chromium:
    """The browser to test with. Fetches it where there is none; raises where that is in vain."""
    for name in _NAMES:
        if (found := shutil.which(name)) and (browser := Chromium(Path(found), _env())).runs():
            return browser
    return _unpacked(services_dir().parent / "browser" / services_tree().name)


def _unpacked(tree: Path) -> Chromium:
    tree.parent.mkdir(parents=True, exist_ok=True)
    path = tree / "usr/lib/chromium/chromium"
    with (tree.parent / "install.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            _unpack(tree)
    browser = Chromium(path, _env(tree))  # whose libraries are in the tree
    assert browser.runs(), f"{browser.path} does not run; put chromium on PATH"
    return browser


def _unpack(tree: Path) -> None:
    """Build the tree beside its place and rename it: another run finds all of it or nothing."""
    with tempfile.TemporaryDirectory(dir=tree.parent) as name:
        work = Path(name)
        apt = Apt(work / "apt")
        apt.update()
        packages = apt.closure([apt.package(pattern) for pattern in _PACKAGES])
        apt.unpack(packages, work / "tree")
        (work / "tree/fonts.conf").write_text(_FONTS.format(tree=tree))
        (work / "tree").rename(tree)


def _env(tree: Path | None = None) -> dict[str, str]:
    environment = dict(os.environ)
    if tree is not None:
        folders = [tree / "usr/lib/chromium"]
        for libraries in (*tree.glob("usr/lib/*-linux-gnu*"), *tree.glob("lib/*-linux-gnu*")):
            folders += [libraries, libraries / "pulseaudio"]  # a library with a folder of its own
        environment["LD_LIBRARY_PATH"] = os.pathsep.join(map(str, folders))
        environment["FONTCONFIG_FILE"] = str(tree / "fonts.conf")
    return environment
