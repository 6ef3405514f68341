"""Sampled Gumbel search for continuous actions: a tree over latents, grown with few model calls, as arrays.

Danihelka et al., Policy improvement by planning with Gumbel (2022), sections 3 and 4, appendices A and D, for what is
visited: sequential halving and completed values; Hubert et al., Learning and Planning in Complex Action Spaces (2021),
for actions sampled at every node. Where samples come from the policy itself the prior over them is uniform.
"""

import math
from dataclasses import dataclass

import torch
from einops import rearrange, repeat
from jaxtyping import Float
from torch import Tensor

from worldmodel.distributions import uniform
from worldmodel.interfaces import Noise, Simulator
from worldmodel.limits import require_number, require_whole
from worldmodel.planners.search import Problem, Search
from worldmodel.simulators.survival import continuation, may_end, may_value


@dataclass(slots=True)
class Tree:
    """Nodes of B trees: latents [B M D], rewards and values [B M], actions [B M K A]; edges [B M K].

    Args:
        broken: visits on whose path the model broke down, which add nothing to the returns.
        missing: discounted steps between the ends of the paths through an edge and the horizon.
        steps: of a node from the root [B M].
        continues: probability that the episode goes on after a node [B M]; None where none ends.
        valued: whether values say what follows, see `may_value`.
    """

    latent: Tensor
    reward: Tensor
    value: Tensor
    actions: Tensor
    children: Tensor
    visits: Tensor
    broken: Tensor
    returns: Tensor
    missing: Tensor
    steps: Tensor
    continues: Tensor | None
    valued: bool

    def mean_reward(self) -> Tensor:
        """Of the nodes [B], 0 for the trees whose nodes have values of their own.

        Stands for the rewards between a path's end and the horizon: without it, returns of paths that end at different
        depths would be sums of more or fewer rewards.
        """
        counts = (self.steps > 0) & (self.reward > _WORST)
        mean = torch.where(counts, self.reward, 0.0).sum(1) / counts.sum(1).clamp_min(1)
        nothing_follows = (self.value == 0).all(1) | (not self.valued)
        return torch.where(nothing_follows, mean, 0.0)


@dataclass(kw_only=True, eq=False)
class GumbelMCTS(Search):
    """Search with `iterations` simulations over `samples` actions a node; executes the root's best survivor.

    Args:
        horizon: greatest depth.
        samples: actions of a node.
        considered: root actions that sequential halving starts with.
        policy_candidates: samples of a node that come from the policy, where there is one; the rest is uniform.
        gumbel_scale: 1 draws from the improved policy, 0 takes its mode.
        visit_scale, value_scale: c_visit and c_scale of the transformation of values.
    """

    horizon: int = 8
    iterations: int = 32
    samples: int = 16
    considered: int = 16
    policy_candidates: int = 8
    gumbel_scale: float = 0.0
    visit_scale: float = 50.0
    value_scale: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        require_whole(samples=self.samples)
        scales = {"gumbel_scale": self.gumbel_scale, "visit_scale": self.visit_scale, "value_scale": self.value_scale}
        require_number(least=0, **scales)
        require_whole(considered=self.considered, most=self.samples)
        require_whole(policy_candidates=self.policy_candidates, least=0, most=self.samples)

    def search(self, problem: Problem) -> tuple[Float[Tensor, "B H A"], Float[Tensor, "B"]]:
        """The best path, zeros beyond it, and its mean return; the warm start's first action is a candidate."""
        tree = self._root(problem)
        gumbel = self.gumbel_scale * _gumbel(tree.visits[:, 0].shape, problem.generator, tree.visits.device)
        rows = torch.arange(len(gumbel), device=gumbel.device)
        schedule = halving(min(self.considered, self.samples), problem.iterations)
        for number, visited in problem.rounds(enumerate(schedule, start=1)):
            self._simulate(problem, tree, rows, gumbel, number, visited)
        return self._decide(tree, rows, gumbel, problem.simulator.discount)

    def _root(self, problem: Problem) -> Tree:
        simulator, latent, warm = problem.simulator, problem.latent, problem.warm
        B, D = latent.shape
        M, K, A = problem.iterations + 1, self.samples, simulator.action_dim
        tree = Tree(
            latent=latent.new_zeros(B, M, D),
            reward=latent.new_zeros(B, M),
            value=latent.new_zeros(B, M),
            actions=latent.new_zeros(B, M, K, A),
            children=torch.full((B, M, K), -1, dtype=torch.long, device=latent.device),
            visits=latent.new_zeros(B, M, K),
            broken=latent.new_zeros(B, M, K),
            returns=latent.new_zeros(B, M, K),
            missing=latent.new_zeros(B, M, K),
            steps=latent.new_zeros(B, M),
            continues=latent.new_ones(B, M) if may_end(simulator) else None,
            valued=may_value(simulator),
        )
        tree.latent[:, 0], tree.value[:, 0] = latent, _sound(simulator.value(latent))
        tree.actions[:, 0] = self._sample(simulator, latent, problem.generator)
        if warm is not None:
            tree.actions[:, 0, 0] = torch.where(warm[:, 0].isfinite(), warm[:, 0], tree.actions[:, 0, 0]).clamp(-1, 1)
        return tree

    def _sample(self, simulator: Simulator, latent: Tensor, generator: Noise) -> Float[Tensor, "B samples A"]:
        """Actions of a node, the policy's first."""
        B, K, A = len(latent), self.samples, simulator.action_dim
        actions = 2 * uniform(B, K, A, generator=generator, device=latent.device).to(latent) - 1
        if not self.policy_candidates:
            return actions
        drawn = simulator.propose(repeat(latent, "B D -> (B P) D", P=self.policy_candidates), generator)
        if drawn is None:
            return actions
        policy = rearrange(drawn, "(B P) A -> B P A", B=B).nan_to_num(0.0).clamp(-1, 1)
        return torch.cat([policy.to(actions), actions[:, self.policy_candidates :]], 1)

    def _simulate(self, problem: Problem, tree: Tree, rows: Tensor, gumbel: Tensor, number: int, visited: int) -> None:
        """Descend to an edge that has no child yet, or to the greatest depth; add the child; back up its value."""
        simulator = problem.simulator
        node = torch.zeros_like(rows)
        going = torch.ones_like(rows, dtype=torch.bool)
        path = []
        last, taken = node, torch.zeros_like(rows)
        for depth in range(self.horizon):
            if depth == 0:
                edge = self._root_choice(tree, rows, gumbel, visited, simulator.discount)
            else:
                edge = self._inner_choice(tree, rows, node, simulator.discount)
            path.append((node, edge, going))
            last, taken = torch.where(going, node, last), torch.where(going, edge, taken)
            child = tree.children[rows, node, edge]
            going = going & (child >= 0)
            node = torch.where(going, child, node)
            # elsewhere than on the CPU it costs more to know than to go on
            if going.device.type == "cpu" and not going.any():
                break
        new = tree.children[rows, last, taken] < 0
        state = simulator.step(tree.latent[rows, last], tree.actions[rows, last, taken])
        reward = simulator.reward(state)
        goes_on = continuation(simulator, state)
        broken = ~(state.isfinite().all(-1) & reward.isfinite())
        if tree.continues is not None and goes_on is not None:
            broken = broken | ~goes_on.isfinite()
            tree.continues[:, number] = torch.where(broken, 1.0, goes_on)
        state = torch.where(broken[:, None], 0.0, state)
        tree.latent[:, number], tree.reward[:, number] = state, torch.where(broken, _WORST, reward)
        tree.value[:, number] = torch.where(broken, 0.0, _sound(simulator.value(state)))
        tree.actions[:, number] = self._sample(simulator, state, problem.generator)
        tree.steps[:, number] = tree.steps[rows, last] + 1
        tree.children[rows, last, taken] = torch.where(new, number, tree.children[rows, last, taken])
        # a path that ended at the greatest depth evaluates the node that is there already
        leaf = tree.children[rows, last, taken]
        self._back_up(simulator, tree, rows, path, leaf)

    def _root_choice(self, tree: Tree, rows: Tensor, gumbel: Tensor, visited: int, discount: float) -> Tensor:
        """The best survivor among the actions visited as often as the schedule says."""
        visits = tree.visits[:, 0]
        wanted = visits.amax(1).clamp_max(visited)
        # the first phase visits only the actions with the highest Gumbel scores
        allowed = (visits == wanted[:, None]) if visited else (visits == 0)
        allowed = torch.where(allowed.any(1, keepdim=True), allowed, True)
        scores = gumbel + self._preference(tree, rows, torch.zeros_like(rows), discount)
        return torch.where(allowed, scores, -torch.inf).argmax(1)

    def _inner_choice(self, tree: Tree, rows: Tensor, node: Tensor, discount: float) -> Tensor:
        """argmax π'(a) - N(a) / (1 + Σ N): visits follow the improved policy (equation 14)."""
        visits = tree.visits[rows, node]
        policy = improved_policy(torch.zeros_like(visits), self._preference(tree, rows, node, discount))
        return (policy - visits / (1 + visits.sum(1, keepdim=True))).argmax(1)

    def _preference(self, tree: Tree, rows: Tensor, node: Tensor, discount: float) -> Float[Tensor, "B samples"]:
        visits, broken = tree.visits[rows, node], tree.broken[rows, node]
        sound, reward = visits - broken, tree.mean_reward()
        q = (tree.returns[rows, node] + reward[:, None] * tree.missing[rows, node]) / sound.clamp_min(1)
        value = tree.value[rows, node] + reward * self._left(tree.steps[rows, node], discount)
        completed = completed_values(q, sound, torch.zeros_like(q), value)
        worth = preference(completed, visits, visit_scale=self.visit_scale, value_scale=self.value_scale)
        # a breakdown is worth a range less than the worst: as a return of -1e9 it would make all others look alike
        least = -(self.visit_scale + visits.amax(-1, keepdim=True)) * self.value_scale
        return torch.lerp(worth, least.expand_as(worth), broken / visits.clamp_min(1))

    def _left(self, steps: Float[Tensor, "B"], discount: float) -> Float[Tensor, "B"]:
        """Discounted steps from that many after the root to the horizon, Σ γ^k."""
        left = self.horizon - steps
        return left if discount == 1 else (1 - discount**left) / (1 - discount)

    def _back_up(
        self, simulator: Simulator, tree: Tree, rows: Tensor, path: list[tuple[Tensor, Tensor, Tensor]], leaf: Tensor
    ) -> None:
        total, missing = tree.value[rows, leaf], self._left(tree.steps[rows, leaf], simulator.discount)
        fails = torch.zeros_like(rows, dtype=torch.bool)
        for node, edge, on_path in reversed(path):
            child = tree.children[rows, node, edge].clamp_min(0)
            discount: float | Tensor = simulator.discount
            if tree.continues is not None:
                discount = discount * tree.continues[rows, child]
                fails = fails & (tree.continues[rows, child] > 0)  # nothing follows an end
            longer = tree.reward[rows, child] + discount * total
            total = torch.where(on_path, longer.clamp(_WORST, -_WORST), total)
            missing = torch.where(on_path, discount * missing, missing)
            fails = on_path & (fails | (tree.reward[rows, child] <= _WORST))
            tree.visits[rows, node, edge] += on_path
            tree.broken[rows, node, edge] += fails
            tree.missing[rows, node, edge] += torch.where(on_path & ~fails, missing, 0.0)
            tree.returns[rows, node, edge] += torch.where(on_path & ~fails, total, 0.0)

    def _decide(self, tree: Tree, rows: Tensor, gumbel: Tensor, discount: float) -> tuple[Tensor, Tensor]:
        node = torch.zeros_like(rows)
        visits = tree.visits[:, 0]
        scores = gumbel + self._preference(tree, rows, node, discount)
        edge = torch.where(visits == visits.amax(1, keepdim=True), scores, -torch.inf).argmax(1)
        value = tree.returns[rows, node, edge] + tree.mean_reward() * tree.missing[rows, node, edge]
        sound = tree.visits[rows, node, edge] - tree.broken[rows, node, edge]
        value = torch.where(sound > 0, value / sound.clamp_min(1), -torch.inf)
        inside, mean = torch.ones_like(rows, dtype=torch.bool), []
        for _ in range(self.horizon):
            mean.append(torch.where(inside[:, None], tree.actions[rows, node, edge], 0.0))
            child = tree.children[rows, node, edge]
            inside = inside & (child >= 0)
            node = torch.where(inside, child, node)
            edge = tree.visits[rows, node].argmax(1)
            inside = inside & (tree.visits[rows, node].amax(1) > 0)
        return torch.stack(mean, 1), value


# the reward of a step on which the model breaks down: finite, and below what any model means
_WORST = -1e9


def _sound(value: Tensor) -> Tensor:
    return torch.where(value.isfinite(), value.clamp(_WORST, -_WORST), 0.0)


def _gumbel(shape: torch.Size, generator: Noise, device: torch.device) -> Tensor:
    draw = uniform(*shape, generator=generator, device=device)
    return -(-draw.clamp(1e-20, 1 - 1e-7).log()).log()


def halving(considered: int, simulations: int) -> list[int]:
    """For every simulation, how often the root action that it visits was visited before.

    log2(considered) phases share the simulations; each visits its survivors equally often and keeps the better half.
    """
    if considered <= 1:
        return list(range(simulations))
    phases, visits, left = math.ceil(math.log2(considered)), 0, considered
    sequence: list[int] = []
    while len(sequence) < simulations:
        for _ in range(max(1, simulations // (phases * left))):
            sequence += [visits] * left
            visits += 1
        left = max(2, left // 2)
    return sequence[:simulations]


def completed_values(
    q: Float[Tensor, "*R samples"],
    visits: Float[Tensor, "*R samples"],
    logits: Float[Tensor, "*R samples"],
    value: Float[Tensor, "*R"],
) -> Float[Tensor, "*R samples"]:
    """Q where an action was visited, else the mixture of the node's value and the visited Qs (equation 33)."""
    seen = visits > 0
    prior = logits.softmax(-1)
    mass = (prior * seen).sum(-1)
    weighted = (prior * torch.where(seen, q, 0.0)).sum(-1) / mass.clamp_min(torch.finfo(q.dtype).tiny)
    total = visits.sum(-1)
    mixed = torch.where(mass > 0, (value + total * weighted) / (1 + total), value)
    return torch.where(seen, q, mixed[..., None])


def preference(
    completed: Float[Tensor, "*R samples"],
    visits: Float[Tensor, "*R samples"],
    *,
    visit_scale: float,
    value_scale: float,
) -> Float[Tensor, "*R samples"]:
    """σ(q) = (c_visit + max N) c_scale q, with q scaled to [0, 1] over the actions (equation 8)."""
    low, high = completed.amin(-1, keepdim=True), completed.amax(-1, keepdim=True)
    scaled = (completed - low) / (high - low).clamp_min(1e-8)
    return (visit_scale + visits.amax(-1, keepdim=True)) * value_scale * scaled


def improved_policy(
    logits: Float[Tensor, "*R samples"], preferences: Float[Tensor, "*R samples"]
) -> Float[Tensor, "*R samples"]:
    """softmax(logits + σ(completed Q)): never worse than the prior where the Qs are exact (equation 11)."""
    return (logits + preferences).softmax(-1)


make = GumbelMCTS
