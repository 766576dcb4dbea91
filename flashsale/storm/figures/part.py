"""A part of summary.json: frozen, and nothing in it that its model does not name."""

from pydantic import BaseModel, ConfigDict


class Part(BaseModel):
    """What every table of a summary is. Its fields' docstrings go into the JSON Schema."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", populate_by_name=True, use_attribute_docstrings=True
    )
