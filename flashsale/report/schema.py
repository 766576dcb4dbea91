"""The JSON Schema of summary.json, made from the model that writes it."""

from typing import Any

from flashsale.resources import resource
from flashsale.storm.summary import Summary

DIALECT = "https://json-schema.org/draft/2020-12/schema"
PUBLISHED = resource("report/summary.schema.json")
"""The same as a file, which ships beside the code; a test holds the two together."""


def summary_schema() -> dict[str, Any]:
    """The schema. What a summary of this version's predecessors lacks is optional."""
    schema = Summary.model_json_schema(by_alias=True, mode="validation")
    title = {"$schema": DIALECT, "title": "summary.json of a flashsale run"}
    return {**title, **{name: part for name, part in schema.items() if name != "title"}}
