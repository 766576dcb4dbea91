"""faults.json: the faults that were made under a storm, and when each was over."""

from typing import Literal

import orjson
from pydantic import Field

from flashsale.run.folder import RunFolder, read_file, write_file
from flashsale.run.parts import Part


class FaultRecord(Part):
    """One fault as it was made. Instants are ms after the barrier, None where they never came."""

    what: str
    whom: str
    told: str
    """What was done, in a line."""

    planned_ms: float
    done_ms: float | None = None
    healed_ms: float | None = None
    """When what it befell did its work again."""

    trouble: str = ""
    """Why it was not made, or not healed."""

    @property
    def was_made(self) -> bool:
        """Whether it was made and healed."""
        return self.done_ms is not None and self.healed_ms is not None and not self.trouble


class FaultRecords(Part):
    """All faults of a run."""

    schema_version: Literal[1] = Field(
        default=1, validation_alias="schema", serialization_alias="schema"
    )
    faults: list[FaultRecord]


def write_faults(folder: RunFolder, records: list[FaultRecord]) -> None:
    """Write faults.json. Raises NotWrittenError."""
    document = FaultRecords(faults=records).model_dump(mode="json", by_alias=True)
    write_file(folder.faults, orjson.dumps(document, option=orjson.OPT_INDENT_2) + b"\n")


def read_faults(folder: RunFolder) -> list[FaultRecord]:
    """The faults of a run; none where it has no such file, or one that cannot be read."""
    try:
        return FaultRecords.model_validate_json(read_file(folder.faults)).faults
    except (OSError, ValueError):
        return []
