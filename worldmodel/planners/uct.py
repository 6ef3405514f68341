"""Monte-Carlo tree search with upper confidence bounds (Algorithm 22, equation 5.2.7), trees as arrays.

Nodes stand for action sequences, not for latents: every simulation plays from the root again, so a stochastic model is
averaged over. All environments of a batch grow their trees in step.
"""

import math
from dataclasses import dataclass
from itertools import product

import torch
from jaxtyping import Float
from torch import Tensor

from worldmodel.distributions import uniform
from worldmodel.errors import BadValue
from worldmodel.interfaces import Noise, Simulator
from worldmodel.limits import require_number, require_whole
from worldmodel.planners.search import Problem, Search
from worldmodel.simulators.survival import continuation
from worldmodel.transfer import send

MAX_ACTIONS = 512


@dataclass(slots=True)
class _Tree:
    """Nodes of B trees: children [B M K], -1 where not grown; visits and accumulated returns of every edge [B M K].

    broken: visits on whose path the model broke down, which add nothing to the returns [B M K].
    low, high: range of the returns seen from each depth [B H].
    """

    children: Tensor
    visits: Tensor
    broken: Tensor
    returns: Tensor
    low: Tensor
    high: Tensor

    def mean(self, rows: Tensor, node: Tensor, depth: int) -> Tensor:
        """Mean returns of a node's edges [B K]; a path on which the model broke down has the worst seen by now."""
        low = self.low[:, depth, None]
        worst = torch.where(low.isfinite(), low, 0.0)
        # not the worst when it broke: what breaks first would have returns that nothing else could be compared with
        returns = self.returns[rows, node] + worst * self.broken[rows, node]
        return returns / self.visits[rows, node].clamp_min(1)


@dataclass(kw_only=True, eq=False)
class UCT(Search):
    """Grow a tree by `iterations` simulations and execute the most visited action of its root.

    Args:
        horizon: decisions of a simulation, beyond the tree those of the policy where there is one, else uniform
            over the action set; the value follows.
        actions: "grid" for `levels` values per dimension, "one_hot" for discrete environments.
        levels: values of each action dimension.
        exploration: C of eq. 5.2.7, 1/2 is UCB1 for returns in [0, 1].
        normalise: scale returns to [0, 1] by the range seen from nodes of the same depth: returns from others are
            sums of more or fewer rewards.
        policy_candidates: 0 leaves the learned policy out; any other number lets it act beyond the tree.
    """

    horizon: int = 8
    iterations: int = 64
    actions: str = "grid"
    levels: int = 3
    exploration: float = 0.5
    normalise: bool = True
    policy_candidates: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        require_whole(levels=self.levels, least=2)
        require_number(exploration=self.exploration, least=0)
        require_whole(policy_candidates=self.policy_candidates, least=0)
        if self.actions not in ("grid", "one_hot"):
            raise BadValue(f"actions: expected 'grid' or 'one_hot', got {self.actions!r}")

    def search(self, problem: Problem) -> tuple[Float[Tensor, "B H A"], Float[Tensor, "B"]]:
        """The most visited path, zeros beyond it, and its first edge's mean return. The warm start is not used."""
        choices = send(self.action_set(problem.simulator.action_dim), problem.latent.device).to(problem.latent)
        tree = _empty(len(problem.latent), problem.iterations + 1, len(choices), self.horizon, problem.latent)
        for number in problem.rounds(range(1, problem.iterations + 1)):
            self._simulate(problem, choices, tree, number)
        return self._decide(tree, choices)

    def action_set(self, action_dim: int) -> Float[Tensor, "choices A"]:
        if self.actions == "one_hot":
            return 2 * torch.eye(action_dim) - 1
        if self.levels**action_dim > MAX_ACTIONS:
            raise BadValue(
                f"levels: expected a grid of at most {MAX_ACTIONS} actions, got {self.levels}^{action_dim}; "
                "planner=gumbel samples its actions"
            )
        return torch.tensor(list(product(torch.linspace(-1, 1, self.levels).tolist(), repeat=action_dim)))

    def _simulate(self, problem: Problem, choices: Tensor, tree: _Tree, number: int) -> None:
        """One simulation of every environment: select, expand one node, evaluate by the default policy, back up."""
        simulator, latent, generator = problem.simulator, problem.latent, problem.generator
        rows = torch.arange(len(latent), device=latent.device)
        node, state = torch.zeros_like(rows), latent
        inside = torch.ones_like(rows, dtype=torch.bool)
        edges, rewards = [], []
        discounts: list[float | Tensor] = []
        for depth in range(self.horizon):
            draw = uniform(len(rows), len(choices), generator=generator, device=latent.device)
            edge = self._select(tree, rows, node, depth, draw)
            action = torch.where(
                inside[:, None], choices[edge], self._default(simulator, state, choices, draw, generator)
            )
            edges.append((node, edge, inside))
            state = simulator.step(state, action)
            rewards.append(simulator.reward(state))
            goes_on = continuation(simulator, state)
            discounts.append(simulator.discount if goes_on is None else simulator.discount * goes_on)
            child = tree.children[rows, node, edge]
            grows = inside & (child < 0) & (depth + 1 < self.horizon)
            tree.children[rows, node, edge] = torch.where(grows, number, child)
            inside = inside & (child >= 0)
            node = torch.where(inside, child, node)
        self._back_up(tree, rows, edges, rewards, discounts, simulator.value(state))

    def _select(self, tree: _Tree, rows: Tensor, node: Tensor, depth: int, draw: Tensor) -> Tensor:
        """argmax Q/N + 2C √(2 ln N_parent / N); unvisited actions first, in random order."""
        visits, mean = tree.visits[rows, node], tree.mean(rows, node, depth)
        if self.normalise:
            low, high = tree.low[:, depth, None], tree.high[:, depth, None]
            mean = (mean - low) / (high - low).clamp_min(1e-8)
        total = visits.sum(1, keepdim=True).clamp_min(1).log()
        bound = mean + 2 * self.exploration * (2 * total / visits.clamp_min(1)).sqrt()
        # a little noise breaks ties without a preference for low indices
        return (
            torch.where(visits == 0, math.inf, bound + 1e-6 * draw)
            .nan_to_num(posinf=1e30)
            .add((visits == 0) * draw * 1e30)
            .argmax(1)
        )

    def _default(self, simulator: Simulator, state: Tensor, choices: Tensor, draw: Tensor, generator: Noise) -> Tensor:
        if self.policy_candidates:
            action = simulator.propose(state, generator)
            if action is not None:
                return action.nan_to_num(0.0).clamp(-1, 1)
        return choices[draw.argmax(1)]

    def _back_up(
        self,
        tree: _Tree,
        rows: Tensor,
        edges: list[tuple[Tensor, Tensor, Tensor]],
        rewards: list[Tensor],
        discounts: list[float | Tensor],
        value: Tensor,
    ) -> None:
        """Add the discounted return from every edge of the path to that edge."""
        following, steps = value, []
        for reward, discount in zip(reversed(rewards), reversed(discounts), strict=True):
            following = reward + discount * following
            steps.append(following)
        for depth, ((node, edge, inside), total) in enumerate(zip(edges, reversed(steps), strict=True)):
            sound, low, high = total.isfinite(), tree.low[:, depth], tree.high[:, depth]
            tree.low[:, depth] = torch.where(sound & inside, torch.minimum(low, total), low)
            tree.high[:, depth] = torch.where(sound & inside, torch.maximum(high, total), high)
            tree.visits[rows, node, edge] += inside
            tree.broken[rows, node, edge] += inside & ~sound
            tree.returns[rows, node, edge] += torch.where(inside & sound, total, 0.0)

    def _decide(self, tree: _Tree, choices: Tensor) -> tuple[Tensor, Tensor]:
        rows = torch.arange(len(tree.low), device=choices.device)
        node, inside = torch.zeros_like(rows), torch.ones_like(rows, dtype=torch.bool)
        mean, value = [], tree.low.new_full((len(rows),), -torch.inf)
        for depth in range(self.horizon):
            visits = tree.visits[rows, node]
            edge = visits.argmax(1)
            inside = inside & (visits.amax(1) > 0)
            if depth == 0:
                root = tree.mean(rows, node, depth)[rows, edge]
                value = torch.where(inside & tree.low[:, 0].isfinite(), root, -torch.inf)
            mean.append(torch.where(inside[:, None], choices[edge], 0.0))
            child = tree.children[rows, node, edge]
            inside = inside & (child >= 0)
            node = torch.where(inside, child, node)
        return torch.stack(mean, 1), value


def _empty(batch: int, nodes: int, actions: int, horizon: int, like: Tensor) -> _Tree:
    shape = (batch, nodes, actions)
    return _Tree(
        children=torch.full(shape, -1, dtype=torch.long, device=like.device),
        visits=like.new_zeros(shape),
        broken=like.new_zeros(shape),
        returns=like.new_zeros(shape),
        low=like.new_full((batch, horizon), torch.inf),
        high=like.new_full((batch, horizon), -torch.inf),
    )


make = UCT
