"""Searches by name, from options that are not all theirs."""

import pytest

from trainers.command import registry
from trainers.command.configuration import load_config
from worldmodel.planners.searches import SEARCHES, make_search


@pytest.mark.parametrize("planner", ["ensemble", "confidence"])
def test_the_configured_options_serve_every_search(planner: str) -> None:
    config = load_config([f"planner={planner}", "planner.candidates=32"])["planner"]
    for search, kind in SEARCHES.items():
        made = registry.make("worldmodel.planners", {**config, "search": search})
        assert type(made.search) is kind and made.search.candidates == 32 and made.horizon == config["horizon"]


def test_an_option_that_no_search_has_is_refused() -> None:
    with pytest.raises(ValueError, match=r"planner\.elitess: .* takes horizon, .*policy_candidates$"):
        make_search("random", {"horizon": 3, "elitess": 2})
    # a field that is not asked for is no option: random shooting sets its own
    assert make_search("random", {"init_std": 2.0}).init_std == 0.0
    with pytest.raises(ValueError, match=r"planner\.search: expected one of cem, .*got 'oracle'"):
        make_search("oracle", {})
