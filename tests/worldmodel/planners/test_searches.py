"""Searches by name, from options that are not all theirs."""

from pathlib import Path

import pytest
import torch

from tests.conftest import small_agent
from trainers.command import registry
from trainers.command.configuration import load_config
from worldmodel import planners
from worldmodel.heads.laplace import LaplaceHead
from worldmodel.planners.cem import CEM
from worldmodel.planners.mppi import MPPI
from worldmodel.planners.random_shooting import RandomShooting
from worldmodel.planners.searches import make_search, search_names
from worldmodel.planners.seeded import SeededCEM


@pytest.mark.parametrize("planner", ["ensemble", "confidence"])
def test_the_configured_options_serve_every_search(planner: str) -> None:
    config = load_config([f"planner={planner}", "planner.candidates=32"])["planner"]
    for search, kind in {"cem": CEM, "mppi": MPPI, "random": RandomShooting, "seeded": SeededCEM}.items():
        made = registry.make("worldmodel.planners", {**config, "search": search})
        assert type(made.search) is kind and made.search.candidates == 32 and made.horizon == config["horizon"]


def test_every_planner_can_search_elsewhere_but_those_that_do() -> None:
    names = search_names()
    assert {"cem", "gradient", "gumbel", "icem", "ilqr", "mppi", "random_shooting", "seeded", "uct"} <= set(names)
    assert not {"ensemble", "confidence", "searches", "search", "lqr"} & set(names)


STRANGER = """
class Still:
    def __init__(self, *, horizon=3, loudness=0):
        self.horizon, self.loudness = horizon, loudness

    def plan(self, simulator, latent, *, warm=None, generator=None, deadline=None, iterations=None):
        actions = latent.new_full((len(latent), self.horizon, simulator.action_dim), self.loudness)
        return Plan(action=actions[:, 0], mean=actions, value=simulator.reward(latent))

from worldmodel.interfaces import Plan
make = Still
"""


@pytest.mark.parametrize("planner", ["ensemble", "confidence"])
def test_somebody_s_own_planner_searches_there_without_an_edit(
    planner: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "stranger.py").write_text(STRANGER)
    monkeypatch.setattr(planners, "__path__", [*planners.__path__, str(tmp_path)])
    made = registry.make("worldmodel.planners", {"name": planner, "search": "stranger", "loudness": 0.5, "elites": 3})
    agent = small_agent("ensemble")
    if planner == "confidence":
        agent.reward = LaplaceHead(latent_dim=agent.dynamics.latent_dim, scale=1.0, hidden=16)
    simulator, latent = agent.simulator(), torch.randn(2, agent.dynamics.latent_dim)
    if planner == "ensemble":
        made.terms["particles"] = 3
    plan = made.plan(simulator, latent)
    assert plan.mean.shape == (2, 3, simulator.action_dim) and (plan.action == 0.5).all()


def test_an_option_that_no_search_has_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^elitess: .* takes horizon, .*policy_candidates$"):
        make_search("random", {"horizon": 3, "elitess": 2})
    # a field that is not asked for is no option: random shooting sets its own
    assert make_search("random", {"init_std": 2.0}).init_std == 0.0
    with pytest.raises(ValueError, match=r"^search: expected one of cem, .*got 'oracle'"):
        make_search("oracle", {})
