"""The archive that this machine's own apt reads: other releases are fetched from the same place."""

import subprocess
import sys


def mirror(system: str = "debian") -> str:
    """The URI of `system`'s archive (debian or ubuntu), as far as it lies beside this machine's."""
    told = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(CODENAME) $(REPO_URI)", "Created-By: Packages"],
        capture_output=True,
        text=True,
        check=False,
    ).stdout
    rows = [line.split() for line in told.splitlines()]
    # bookworm's, not that of bookworm-security.
    main = [uri for codename, uri in rows if "-" not in codename]
    if not main:
        sys.exit("this machine's apt names no archive; run `apt-get update` as root first")
    return f"{main[0].rstrip('/').rpartition('/')[0]}/{system}"
