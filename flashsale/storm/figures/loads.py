"""What reads cost the database. The storm knows what was asked for; the count is given to it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Loads:
    """Loads of shops, as the database itself counted them, beside what was asked for.

    A count that would not be exact is None, and `why` says so: it fails what is demanded of it.
    """

    count: int | None
    shops: int  # distinct shops that were asked for and exist
    unknown: int  # reads of ids that do not exist
    why: str = ""

    @property
    def per_shop(self) -> float | None:
        """Loads for each shop that was asked for; None where none was, or none was counted."""
        return None if self.count is None or not self.shops else self.count / self.shops

    @property
    def per_unknown(self) -> float | None:
        """Loads for each read of an unknown id; None where there was none, too."""
        return None if self.count is None or not self.unknown else self.count / self.unknown
