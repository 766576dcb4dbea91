"""Where the files that ship beside the code are: scenarios and deployment templates."""

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def resource(name: str) -> Path:
    """The path of `scenarios/…` or `deploy/…`, in a wheel or in a checkout."""
    shipped = _PACKAGE / name
    return shipped if shipped.exists() else _PACKAGE.parent / name
