"""`python -m tools.bare RELEASE COMMAND…`: run a command in a bare tree of a Debian release.

Builds the tree with debootstrap (minbase) where it is not there yet, adds the documented
prerequisites and nothing else, clones this checkout's last commit into the home of a new user, and
runs the command there as that user, without root. Needs root, debootstrap and unshare itself; the
mirror, proxies and certificates are those of this machine. Mounts and processes live in namespaces
of their own and end with the command.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tools.mirror import mirror

ROOT = Path(__file__).resolve().parents[1]
TREES = Path(os.environ.get("FLASHSALE_BARE_DIR", "/var/tmp/flashsale-bare"))  # noqa: S108
PREREQUISITES = ("git", "make", "python3", "python3-venv", "ca-certificates")
USER = "buyer"

_PASSED_ON = (
    "PIP_CERT",
    "PIP_INDEX_URL",
    "PIP_DEFAULT_TIMEOUT",
    "http_",
    "https_",
    "no_proxy",
    "HTTP_",
    "HTTPS_",
    "NO_PROXY",
    "SSL_",
)
_CERTIFICATES = Path("usr/local/share/ca-certificates")
_MOUNT_AND_ENTER = """\
mount --make-rprivate / && mount --rbind /dev "$1/dev" && mount -t proc proc "$1/proc" || exit 1
tree=$1; shift
chroot "$tree" "$@"
"""
"""The shell stays, as the first process of its namespace: to become the user would undo that it is
killed with `unshare`, and everything in the namespace with it."""
_NAMESPACES = ("unshare", "--mount", "--pid", "--fork", "--kill-child")


def main(arguments: Sequence[str]) -> int:
    """Returns what the command returned."""
    if len(arguments) < 2:
        print("usage: python -m tools.bare RELEASE COMMAND…", file=sys.stderr)
        return 2
    missing = [tool for tool in ("debootstrap", "unshare", "git") if shutil.which(tool) is None]
    if os.geteuid() != 0 or missing:
        print(
            f"a bare tree needs root, debootstrap and unshare; missing: {missing}", file=sys.stderr
        )
        return 2
    release, *command = arguments
    tree = TREES / release
    _build(release, tree)
    checkout = _fresh_home(tree)
    words = [
        "env",
        "-i",
        *_environment(),
        "sh",
        "-c",
        f'cd {checkout} && exec "$@"',
        "sh",
        *command,
    ]
    return _inside(tree, ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--init-groups", *words])


def _build(release: str, tree: Path) -> None:
    done = tree / "var/lib/flashsale-bare"
    if done.exists():
        return
    shutil.rmtree(tree, ignore_errors=True)
    TREES.mkdir(parents=True, exist_ok=True)
    _run(["debootstrap", "--variant=minbase", release, tree, mirror()])
    (tree / "etc/apt/sources.list").write_text(f"deb {mirror()} {release} main\n")
    told = subprocess.run(["apt-config", "dump", "Acquire"], capture_output=True, check=True)
    (tree / "etc/apt/apt.conf.d/90host").write_bytes(told.stdout)
    apt = ["env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-q", "-y"]
    _expect(_inside(tree, [*apt, "update"]))
    _expect(_inside(tree, [*apt, "install", "--no-install-recommends", *PREREQUISITES]))
    _bring_certificates(tree)
    _expect(_inside(tree, ["useradd", "--shell", "/bin/sh", "--home-dir", f"/home/{USER}", USER]))
    done.touch()


def _bring_certificates(tree: Path) -> None:
    """What this machine trusts beside the distribution's: a company's proxy has its own."""
    shutil.copytree(Path("/") / _CERTIFICATES, tree / _CERTIFICATES, dirs_exist_ok=True)
    _expect(_inside(tree, ["update-ca-certificates"]))
    if Path("/etc/pip.conf").exists():
        shutil.copy("/etc/pip.conf", tree / "etc/pip.conf")


def _fresh_home(tree: Path) -> str:
    home = tree / "home" / USER
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(parents=True)
    shutil.copy("/etc/resolv.conf", tree / "etc/resolv.conf")
    _run(["git", "clone", "--quiet", "--no-hardlinks", ROOT, home / "flashsale"])
    _expect(_inside(tree, ["chown", "-R", f"{USER}:{USER}", f"/home/{USER}"]))
    return f"/home/{USER}/flashsale"


def _environment() -> list[str]:
    kept = [f"{name}={value}" for name, value in os.environ.items() if name.startswith(_PASSED_ON)]
    return [f"HOME=/home/{USER}", "PATH=/usr/local/bin:/usr/bin:/bin", *kept]


def _inside(tree: Path, command: Sequence[str]) -> int:
    entered = [*_NAMESPACES, "sh", "-c", _MOUNT_AND_ENTER, "sh", str(tree), *command]
    return subprocess.run(entered, check=False).returncode


def _run(command: Sequence[str | Path]) -> None:
    _expect(subprocess.run(command, check=False).returncode)


def _expect(code: int) -> None:
    if code != 0:
        sys.exit(f"building the bare tree failed (exit status {code}); see above")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
