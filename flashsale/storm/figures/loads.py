"""What reads cost the database. The storm knows what was asked for; the count is given to it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Loads:
    """Loads of shops, as the database itself counted them, beside what was asked for."""

    count: int
    shops: int  # distinct shops that were asked for and exist
    unknown: int  # reads of ids that do not exist

    @property
    def per_shop(self) -> float | None:
        """Loads for each shop that was asked for; None where none was."""
        return self.count / self.shops if self.shops else None

    @property
    def per_unknown(self) -> float | None:
        """Loads for each read of an unknown id; None where there was none."""
        return self.count / self.unknown if self.unknown else None
