"""What was made of weights is used for as long as they are the same, and not a decision longer."""

import copy
import itertools
import pickle

import pytest
import torch
from torch import nn

from tests.conftest import random_batch, small_agent
from worldmodel.agents.while_unchanged import WhileUnchanged


def made_anew(kept: WhileUnchanged[int], numbers: "itertools.count[int]", tensors) -> bool:
    before = next(numbers)
    return kept.get(tensors, lambda: next(numbers)) > before


def adam_step(net: nn.Module) -> None:
    net(torch.ones(1, 2)).sum().backward()
    torch.optim.Adam(net.parameters(), fused=True).step()


CHANGES = {
    "an optimiser's step": adam_step,
    "another's weights": lambda net: net.load_state_dict(nn.Linear(2, 2).state_dict()),
    "a slow copy's step": lambda net: torch._foreach_lerp_([*net.parameters()], [torch.ones(2, 2), torch.ones(2)], 0.5),
    "new memory": lambda net: net.double(),
    "another tensor": lambda net: setattr(net, "bias", nn.Parameter(torch.zeros(2))),
    "one tensor less": lambda net: setattr(net, "bias", None),
}


@pytest.mark.parametrize("change", CHANGES)
def test_every_change_is_seen_once(change: str) -> None:
    net, kept, numbers = nn.Linear(2, 2), WhileUnchanged[int](), itertools.count()
    assert [made_anew(kept, numbers, net.parameters()) for _ in range(3)] == [True, False, False]
    net(torch.ones(1, 2))
    assert not made_anew(kept, numbers, net.parameters()), "reading changes nothing"
    with torch.no_grad() if change != "an optimiser's step" else torch.enable_grad():
        CHANGES[change](net)
    assert [made_anew(kept, numbers, net.parameters()) for _ in range(2)] == [True, False]


def test_tensors_without_a_version_are_taken_for_changed() -> None:
    with torch.inference_mode():
        net = nn.Linear(2, 2)
    kept, numbers = WhileUnchanged[int](), itertools.count()
    assert [made_anew(kept, numbers, net.parameters()) for _ in range(2)] == [True, True]


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_copies_are_empty(duplicate) -> None:
    net, kept, numbers = nn.Linear(2, 2), WhileUnchanged[int](), itertools.count()
    made_anew(kept, numbers, net.parameters())
    assert made_anew(duplicate(kept), numbers, net.parameters())


def test_an_agent_plans_with_the_weights_of_now() -> None:
    agent, frames = small_agent(), {"pixels": random_batch(B=1, T=1).pixels[:, 0]}
    agent.eval()
    first = torch.ones(1, dtype=torch.bool)

    def plan(one) -> torch.Tensor:
        return one.act(frames, first, one.initial_carry(1), generator=torch.Generator().manual_seed(0)).carry.plan

    before = plan(agent)
    assert torch.equal(plan(agent), before)
    with torch.no_grad():
        for part in (agent.dynamics, agent.reward):
            for weight in part.parameters():
                weight.add_(0.1 * torch.randn_like(weight))
    after = plan(agent)
    assert not torch.equal(after, before)
    torch.testing.assert_close(after, plan(copy.deepcopy(agent)))
