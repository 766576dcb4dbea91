"""Loaded by schemathesis (rig.api_cases): which of its cases are not sent."""

import re

import schemathesis

_WRITTEN_AS_A_FRACTION = re.compile(r"-?[0-9]+\.0+(e.*)?")


@schemathesis.hook
def filter_case(context: schemathesis.HookContext, case: schemathesis.Case) -> bool:
    """Keep what has no whole number written as 5.0 in its path or query: the same number to JSON's
    schema, and no id to us, which are of decimal digits. Nor a form with anything but texts in it,
    sent to break the type of one: a number, a boolean or null is sent as the word for it."""
    values = [*(case.path_parameters or {}).values(), *(case.query or {}).values()]
    if any(_WRITTEN_AS_A_FRACTION.fullmatch(str(value)) for value in values):
        return False
    form = case.body if case.media_type == "multipart/form-data" else None
    is_typed = isinstance(form, dict) and any(
        not isinstance(it, (str, bytes)) for it in form.values()
    )
    return not is_typed
