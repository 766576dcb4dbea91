import pytest

from flashsale.scenario.scenario import (
    built_in_names,
    load_scenario,
    parse_scenario,
    scenario_document,
    scenario_of,
)
from flashsale.scenario.thresholds import parse_expression


@pytest.mark.parametrize("name", built_in_names())
def test_a_scenario_is_read_as_it_was_written(name: str) -> None:
    scenario = load_scenario(name)
    assert scenario_of(scenario_document(scenario)) == scenario


def test_what_was_demanded_on_the_command_line_is_kept_beside_the_scenarios_own() -> None:
    scenario = parse_scenario(
        'schema = 1\nname = "x"\n[sale]\nunits = 1\n[load]\nmodel = "stampede"\nusers = 2\n'
        'connections = 2\n[messages]\n"gone" = "sold_out"\n'
        '[thresholds]\n"buy.response.p99" = "< 50ms"',
        "x",
    )
    more = (parse_expression("buy.p99<40ms", "--require"), parse_expression("rate>=1/s", "f"))
    demanding = scenario.model_copy(update={"thresholds": scenario.thresholds + more})
    again = scenario_of(scenario_document(demanding))
    assert again.thresholds == demanding.thresholds
    assert again.messages == {"gone": "sold_out"}


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"[]",
        b"{}",
        b'{"scenario":{},"thresholds":[]}',
        b'{"scenario":%s,"thresholds":[]}' % (b"[" * 900 + b"]" * 900),
        b'{"scenario":{},"thresholds":[["rate",%s]]}' % (b"[" * 900 + b"]" * 900),
        b"[" * 30_000,
    ],
)
def test_what_is_no_scenario_is_refused(document: bytes) -> None:
    with pytest.raises(ValueError):
        scenario_of(document)
