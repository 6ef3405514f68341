"""Model-based reinforcement learning on observed states, versions 0.5, 1.0 and 1.5 (Algorithms 23 to 25).

What tells the versions apart is which states the data holds, which is the loop's business, and how often the agent
plans anew, which is `replan`.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from worldmodel.interfaces import Loss, Noise, Planner, Transitions
from worldmodel.rewards import Reward
from worldmodel.state_dynamics import StateDynamics


class StateSimulator:
    """f(s, a) and r(s, a) for planners: its latents [R, D + A] are states and the actions that led to them."""

    def __init__(self, dynamics: StateDynamics, reward: Reward, *, action_dim: int, discount: float) -> None:
        self._dynamics, self._reward = dynamics, reward
        self.action_dim, self.discount = action_dim, discount

    def start(self, state: Float[Tensor, "B D"]) -> Float[Tensor, "B S"]:
        """The latent of a state, before any action."""
        return torch.cat([state, state.new_zeros(len(state), self.action_dim)], -1)

    def step(self, latent: Float[Tensor, "R S"], action: Float[Tensor, "R A"]) -> Float[Tensor, "R S"]:
        """The next state, and the action."""
        return torch.cat([self._dynamics.predict(latent[:, : -self.action_dim], action), action], -1)

    def reward(self, latent: Float[Tensor, "*R S"]) -> Float[Tensor, "*R"]:
        """What arrived with a state."""
        return self._reward(latent[..., : -self.action_dim], latent[..., -self.action_dim :])  # type: ignore[no-any-return]

    def value(self, latent: Float[Tensor, "*R S"]) -> Float[Tensor, "*R"]:
        """Nothing is known of what follows the horizon."""
        return latent.new_zeros(latent.shape[:-1])

    def propose(self, latent: Float[Tensor, "R S"], generator: Noise) -> None:
        """There is no policy."""
        return


@dataclass(frozen=True, slots=True)
class OpenPlan:
    """What the agent remembers: the plan under way, and how many of its actions are done."""

    actions: Float[Tensor, "B H A"]
    done: int


class Decision(NamedTuple):
    """What `act` returns: actions, what to remember, and the plan's predicted return where there is a new plan."""

    action: Float[Tensor, "B A"]
    carry: OpenPlan
    predicted_return: Float[Tensor, "B"] | None


class StateMPC(nn.Module):
    """Learns f(s, a), and executes `replan` actions of each plan through it before it plans anew.

    replan: 1 is model predictive control (version 1.5); the episode's length is open loop (versions 0.5 and 1.0).
    """

    def __init__(
        self,
        *,
        dynamics: StateDynamics,
        reward: Reward,
        planner: Planner,
        action_dim: int,
        discount: float = 1.0,
        replan: int = 1,
    ) -> None:
        super().__init__()
        if not 1 <= replan <= planner.horizon:
            raise ValueError(f"agent.replan: expected 1 to planner.horizon={planner.horizon}, got {replan}")
        self.dynamics, self.reward, self.planner = dynamics, reward, planner
        self.action_dim, self.discount, self.replan = action_dim, discount, replan

    def simulator(self) -> StateSimulator:
        """The learned world, as planners see it."""
        return StateSimulator(self.dynamics, self.reward, action_dim=self.action_dim, discount=self.discount)

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """All weights are the model's."""
        return {"model": [*self.dynamics.parameters(), *self.reward.parameters()]}

    def losses(self, batch: Transitions) -> Loss:
        """Line 2 of version 0.5, line 3 of the others: Σ ‖f(s, a) - s'‖², and the reward's where it is learned."""
        terms = {
            "dynamics": self.dynamics.loss(batch.state, batch.action, batch.following),
            "reward": self.reward.loss(batch.following, batch.action, batch.reward),
        }
        total = torch.stack([term.mean() for term in terms.values()]).sum()
        return Loss(total, {f"loss/{name}": term.detach().mean() for name, term in terms.items()})

    def after_step(self) -> None:
        """Nothing follows the weights."""

    @torch.no_grad()
    def act(self, state: Float[Tensor, "B D"], carry: OpenPlan | None, *, generator: Noise = None) -> Decision:
        """The next action of the plan, or the first one of a new plan; None opens episodes in all rows."""
        if carry is not None and carry.done < self.replan:
            return Decision(carry.actions[:, carry.done], OpenPlan(carry.actions, carry.done + 1), None)
        simulator = self.simulator()
        warm = None if carry is None else self._rest(carry)
        plan = self.planner.plan(simulator, simulator.start(state), warm=warm, generator=generator)
        return Decision(plan.mean[:, 0], OpenPlan(plan.mean, 1), plan.value)

    def _rest(self, carry: OpenPlan) -> Tensor:
        """What was planned beyond the last action, which is repeated."""
        rest = carry.actions[:, carry.done :]
        return torch.cat([rest, carry.actions[:, -1:].expand(-1, carry.done, -1)], 1)
