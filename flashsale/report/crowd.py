"""Who came, in words."""

from flashsale.report.number import plural
from flashsale.run.summary import LoadFigures


def crowd(load: LoadFigures) -> str:
    """The users, or what was asked where nobody is named."""
    if load.asked == "reads":
        return plural(load.planned, "read")
    users = plural(load.users, "user")
    return f"{users} in {load.planned:,} steps" if load.asked == "steps" else users
