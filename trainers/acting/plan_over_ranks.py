"""An agent of the first rank that plans with the devices of all ranks that torchrun started."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor, distributed

from trainers.command.configuration import BadConfig
from worldmodel.agents.latent_mpc import LatentMPC
from worldmodel.interfaces import Acts, Planner, Simulator
from worldmodel.planners.searches import SearchElsewhere
from worldmodel.planners.shooting import Shooting
from worldmodel.simulators.over_ranks import SimulatorOverRanks, release, score_for_first_rank


class PlannerOverRanks(SearchElsewhere):
    """A planner of the first rank whose candidates all ranks score."""

    def __init__(self, planner: Planner, *, device: torch.device) -> None:
        super().__init__(planner)
        self._device = device

    def world(
        self, simulator: Simulator, latent: Float[Tensor, "B D"]
    ) -> tuple[SimulatorOverRanks, Float[Tensor, "B D"]]:
        """The same world; every plan tells the other ranks anew from where it starts."""
        return SimulatorOverRanks(simulator, device=self._device), latent


def planning_ranks() -> int:
    """How many processes torchrun started; 1 without it."""
    return int(os.environ["WORLD_SIZE"]) if "TORCHELASTIC_RUN_ID" in os.environ else 1


def only_scores() -> bool:
    """Whether this process scores candidates for the first rank and does nothing else."""
    return planning_ranks() > 1 and int(os.environ["RANK"]) > 0


def own_device(device: torch.device) -> torch.device:
    """A rank's own of the devices of that kind on its machine."""
    several = planning_ranks() > 1 and device.type == "cuda"
    return torch.device("cuda", int(os.environ["LOCAL_RANK"])) if several else device


def require_shared_plan(agent: Acts) -> None:
    """Raise BadConfig where an agent that several ranks are to plan for has nothing that could be shared out."""
    if not isinstance(agent, LatentMPC):
        acts = type(agent).__name__
    elif agent.act_with == "actor":
        acts = "agent.act_with=actor"
    elif isinstance(agent.planner, Shooting):
        return
    else:
        acts = type(agent.planner).__name__
    raise BadConfig(
        f"planner: expected one that scores sequences, such as planner=cem, for {planning_ranks()} ranks to plan "
        f"together, got {acts}; start one process"
    )


@contextmanager
def plan_over_ranks(agent: Acts, *, device: torch.device) -> Iterator[None]:
    """Within it the first rank's agent plans on the devices of all ranks; the others stay here until it leaves.

    Args:
        agent: with the same weights on all ranks, on `device`; the first rank's has another planner within.
        device: of this rank.

    Raises:
        BadConfig: for an agent without a plan that can be shared out.
    """
    if planning_ranks() == 1:
        yield
        return
    require_shared_plan(agent)
    assert isinstance(agent, LatentMPC)
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        if only_scores():
            score_for_first_rank(agent.simulator(), device=device)
            yield
            return
        planner, agent.planner = agent.planner, PlannerOverRanks(agent.planner, device=device)
        try:
            yield
        finally:
            agent.planner = planner
            release(device)
    finally:
        distributed.destroy_process_group()
