"""Iterative LQR through the model: linearise, solve a regulator along the plan, search along its step.

Tassa, Mansard and Todorov, Control-Limited Differential Dynamic Programming (2014), without second derivatives of
the dynamics. Everything is batched over environments, the line search too.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from worldmodel.interfaces import Simulator
from worldmodel.limits import require_number, require_whole
from worldmodel.planners._box_qp import solve_box_qp, solve_free
from worldmodel.planners.derivatives import discounts, expand
from worldmodel.planners.lqr import Gains, cost_to_go, matvec
from worldmodel.planners.search import Problem, Search
from worldmodel.records import choose
from worldmodel.simulators.survival import SurvivalSimulator, may_end
from worldmodel.transfer import send

_STEPS = 0.5 ** torch.arange(11)
_ACCEPTED = 1e-4  # of the improvement that the quadratic model promises
_MIN_DAMPING, _MAX_DAMPING = 1e-8, 1e8


@dataclass(slots=True)
class _Path:
    """A plan and what the model makes of it. states [B H+1 n], actions [B H A], total return [B]."""

    states: Tensor
    actions: Tensor
    total: Tensor


@dataclass(kw_only=True, eq=False)
class ILQR(Search):
    """Regulator steps along a path until it no longer improves; states are the model's latents.

    Rewards are functions of the arriving latent; their Hessians are made negative semidefinite. Where the model breaks
    down along the first path, the search begins at zeros.

    Args:
        damping: first Levenberg-Marquardt term, on the states; it adapts per environment.
        bounded: actions stay within [-1, 1] by clamping directions that lead out (box constraints), False for
            problems without bounds.
        policy_candidates: from 1 on, start from a sequence of the policy where there is no warm start.
    """

    horizon: int = 12
    iterations: int = 10
    damping: float = 1e-6
    bounded: bool = True
    policy_candidates: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        require_number(damping=self.damping, least=0)
        require_whole(policy_candidates=self.policy_candidates, least=0)

    def search(self, problem: Problem) -> tuple[Float[Tensor, "B H A"], Float[Tensor, "B"]]:
        simulator = problem.simulator
        with torch.inference_mode(False), torch.no_grad():
            start = problem.latent.clone()
            if may_end(simulator):
                simulator = SurvivalSimulator(simulator)
                start = simulator.start(start)
            path = self._rollout(simulator, start, self._first(problem))
            # from a path on which the model breaks down no derivative leads away; elsewhere looking would wait
            if start.device.type != "cpu" or not path.total.isfinite().all():
                still = self._rollout(simulator, start, torch.zeros_like(path.actions))
                path = choose(path.total.isfinite(), path, still)
            damping = start.new_full((len(start),), self.damping)
            for _ in problem.rounds(range(problem.iterations)):
                path, damping, improved = self._improve(simulator, path, damping)
                # elsewhere than on the CPU it costs more to know than to go on
                if start.device.type == "cpu" and not improved.any() and (damping >= _MAX_DAMPING).all():
                    break
        return path.actions.nan_to_num(0.0), path.total

    def _first(self, problem: Problem) -> Float[Tensor, "B H A"]:
        policy = problem.policy(min(1, self.policy_candidates), self.horizon)
        size = (len(problem.latent), self.horizon, problem.simulator.action_dim)
        actions = problem.warm_or(problem.latent.new_zeros(size) if policy is None else policy[:, 0])
        return actions.clamp(-1, 1) if self.bounded else actions

    def _improve(self, simulator: Simulator, path: _Path, damping: Tensor) -> tuple[_Path, Tensor, Bool[Tensor, "B"]]:
        """One regulator step for every environment; those that find no better path keep theirs and damp more."""
        gains, promised = self._backward(simulator, path, damping)
        found = self._search(simulator, path, gains)
        gain = found.total - path.total
        # the promise is of a full step; a shorter one that improves at all is taken as well
        better = gain > _ACCEPTED * promised.clamp_min(0) * _STEPS[-1]
        better &= (gain > 0) & found.total.isfinite()
        path = choose(better, found, path)
        damping = torch.where(better, damping / 4, damping * 10).clamp(_MIN_DAMPING, _MAX_DAMPING)
        return path, damping, better

    # --- along a path ---------------------------------------------------------------------------------------------

    def _rollout(self, simulator: Simulator, start: Tensor, actions: Tensor) -> _Path:
        states = [start]
        for k in range(self.horizon):
            states.append(simulator.step(states[-1], actions[:, k]))
        return self._path(simulator, torch.stack(states, 1), actions)

    def _path(self, simulator: Simulator, states: Tensor, actions: Tensor) -> _Path:
        rewards = simulator.reward(states[:, 1:])
        total = rewards @ discounts(
            simulator, self.horizon, rewards
        ) + simulator.discount**self.horizon * simulator.value(states[:, -1])
        return _Path(states, actions, torch.where(total.isfinite(), total, -torch.inf))

    def _backward(self, simulator: Simulator, path: _Path, damping: Tensor) -> tuple[list[Gains], Tensor]:
        """Gains of every step, and the improvement that the quadratic model promises for a full step."""
        along = expand(simulator, path.states, path.actions)
        n = path.states.shape[-1]
        eye = torch.eye(n, dtype=path.states.dtype, device=path.states.device)
        V, v = torch.zeros_like(along.curvature[:, -1]), torch.zeros_like(along.slope[:, -1])
        gains, promised = [], torch.zeros_like(path.total)
        for k in reversed(range(self.horizon)):
            V, v, f = V + along.curvature[:, k], v + along.slope[:, k], along.transition[:, k]
            Q, q = f.mT @ V @ f, matvec(f.mT, v)
            damped = f.mT @ (V + damping[:, None, None] * eye) @ f
            K, step = self._controls(damped[:, n:, n:], damped[:, n:, :n], q[:, n:], path.actions[:, k])
            promised -= (step * q[:, n:]).sum(-1) + 0.5 * torch.einsum("ba,bac,bc->b", step, Q[:, n:, n:], step)
            gains.append(cost_to_go(Q, q, K, step))
            V, v = gains[-1].V, gains[-1].v
        return gains[::-1], promised

    def _controls(self, uu: Tensor, ux: Tensor, u: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        """Feedback [B A n] and step [B A]; dimensions that a bound stops have no feedback."""
        eye = torch.eye(u.shape[-1], dtype=u.dtype, device=u.device)
        # a model that does not answer to actions has no curvature: a small step down the slope is left
        uu = uu + eye * (1e-12 + 1e-12 * uu.diagonal(dim1=-2, dim2=-1).abs().amax(-1))[:, None, None]
        if self.bounded:
            step, free = solve_box_qp(uu, u, -1 - action, 1 - action)
        else:
            free = torch.ones_like(u, dtype=torch.bool)
            step = -solve_free(uu, u[..., None], free)[..., 0]
        return -solve_free(uu, ux, free), step

    def _search(self, simulator: Simulator, path: _Path, gains: list[Gains]) -> _Path:
        """The best of all step lengths, rolled out at once."""
        B, count = path.states.shape[0], len(_STEPS)
        alpha = send(_STEPS, path.states.device).to(path.states).repeat(B)[:, None]
        state = path.states[:, 0].repeat_interleave(count, 0)
        states, actions = [state], []
        for k, gain in enumerate(gains):
            K, step, was, action = (
                x.repeat_interleave(count, 0) for x in (gain.K, gain.k, path.states[:, k], path.actions[:, k])
            )
            action = action + alpha * step + matvec(K, state - was)
            action = action.nan_to_num(0.0, 1.0, -1.0)
            actions.append(action.clamp(-1, 1) if self.bounded else action)
            state = simulator.step(state, actions[-1])
            states.append(state)
        all_paths = self._path(simulator, torch.stack(states, 1), torch.stack(actions, 1))
        choice = all_paths.total.view(B, count).argmax(1) + count * torch.arange(B, device=state.device)
        return _Path(all_paths.states[choice], all_paths.actions[choice], all_paths.total[choice])


make = ILQR
