"""A teacher's labels: along real episodes that teacher and student share, and along replayed ones."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from datamodules.envs.protocol import Pool, Step
from datamodules.envs.seeds import SeedRank, episode_seed
from datamodules.observation import Observation
from datamodules.rollout import Episode, play
from datamodules.trajectory import Trajectory
from trainers.distillation.labelled import LabelledEpisode
from worldmodel.agents.planner_teacher import PlannerTeacher
from worldmodel.distillation.planner_gaussian import PlannerTarget
from worldmodel.interfaces import Acts
from worldmodel.records import choose
from worldmodel.transfer import send


class SharedPolicy:
    """DAgger's mixture: every decision is the teacher's with some probability, else the student's; all are labelled.

    Args:
        teacher: labels every decision.
        student: makes the others; None where the teacher makes all.
        teacher_share: that probability, β.
        seeds: of the planner's noise and of who decides, for each environment.
    """

    def __init__(
        self, teacher: PlannerTeacher, student: Acts | None, *, teacher_share: float, seeds: Sequence[int]
    ) -> None:
        self._teacher, self._student = teacher, student
        self._share = 1.0 if student is None else teacher_share
        self._noise, self._bystander = [torch.Generator().manual_seed(seed) for seed in seeds], torch.Generator()
        self._lots = [np.random.default_rng(seed) for seed in seeds]
        self._carry = teacher.initial_carry(len(seeds))
        self._own = None if student is None else student.initial_carry(len(seeds))
        self.labels: list[tuple[NDArray[np.float32], NDArray[np.float32]]] = []  # mean and std [n A] of every call

    @torch.no_grad()
    def __call__(
        self, observation: Observation, is_first: NDArray[np.bool_], ready: NDArray[np.bool_]
    ) -> NDArray[np.float32]:
        """Actions [n, A]; of rows that are not ready [n] the carries stay, and the action means nothing."""
        device = self._carry.belief.device
        seen = {name: send(torch.from_numpy(rows), device) for name, rows in observation.items()}
        first, waits = (send(torch.from_numpy(rows), device) for rows in (is_first, ready))
        carry = choose(first, self._teacher.initial_carry(len(ready)), self._carry)
        noise = [own if r else self._bystander for own, r in zip(self._noise, ready, strict=True)]
        target, after = self._teacher.label(seen, first, carry, generator=noise)
        action = target.mean
        if self._student is not None and self._own is not None:
            own = choose(first, self._student.initial_carry(len(ready)), self._own)
            decision = self._student.act(seen, first, own)
            lots = [r and lot.random() >= self._share for lot, r in zip(self._lots, ready, strict=True)]
            action = torch.where(torch.tensor(lots, device=action.device)[:, None], decision.action, action)
            self._own = choose(waits, self._teacher.executed(decision.carry, action), self._own)
        self._carry = choose(waits, self._teacher.executed(after, action), self._carry)
        self.labels.append(_numpy(target))
        return action.float().cpu().numpy()


def played(
    pool: Pool,
    teacher: PlannerTeacher,
    student: Acts | None,
    *,
    teacher_share: float,
    env_steps: int,
    envs: int,
    seed: int,
    first: int,
    on_turn: Callable[[], None],
) -> Iterator[tuple[LabelledEpisode, Episode]]:
    """Episodes of SharedPolicy's mixture, `envs` side by side in the real environment, until env_steps are played.

    first: number of the first episode, from which its seed comes. on_turn: called before every decision; what it raises
    breaks off the play.
    """
    longest, done, number = pool.spec.episode_steps, 0, first
    while done < env_steps:
        count = min(envs, -(-(env_steps - done) // longest))
        numbers = range(number, number + count)
        seeds = {i: episode_seed(seed, SeedRank.DISTILLATION, 0, n) for i, n in enumerate(numbers)}
        noise = [episode_seed(seed, SeedRank.DISTILLATION, 1, n) for n in numbers]
        policy = SharedPolicy(teacher, student, teacher_share=teacher_share, seeds=noise)
        rows: dict[int, list[tuple[Step, NDArray[np.float32]]]] = {i: [] for i in range(count)}

        def take(index: int, step: Step, action: NDArray[np.float32], rows: dict = rows) -> None:  # type: ignore[type-arg]
            rows[index].append((step, action.copy()))

        for episode in play(pool, policy, seeds, on_row=take, on_turn=on_turn):
            done += max(episode.env_steps, 1)
            if episode.decisions:
                yield _labelled(Trajectory.from_rows(rows[episode.index]), episode, policy), episode
        number += count


def replayed(
    episodes: Sequence[Trajectory], teacher: PlannerTeacher, *, seed: int, first: int, on_turn: Callable[[], None]
) -> list[LabelledEpisode]:
    """Recorded episodes labelled side by side, as if they were played: the teacher's belief follows their actions.

    first: number of the first of them, from which the planner's noise comes. on_turn: called before every decision.
    """
    count, longest = len(episodes), max(map(len, episodes))
    generators = [
        torch.Generator().manual_seed(episode_seed(seed, SeedRank.DISTILLATION, 2, first + i)) for i in range(count)
    ]
    carry, labels = teacher.initial_carry(count), []
    device = carry.belief.device
    for t in range(longest):
        on_turn()
        rows = [min(t, len(episode) - 1) for episode in episodes]
        seen = {
            name: torch.from_numpy(np.stack([e.observation[name][r] for e, r in zip(episodes, rows, strict=True)]))
            for name in episodes[0].observation
        }
        action = torch.from_numpy(np.stack([e.action[r] for e, r in zip(episodes, rows, strict=True)])).to(device)
        is_first = torch.full((count,), t == 0, device=device)
        carry = teacher.executed(carry, action)
        target, carry = teacher.label(
            {name: part.to(device) for name, part in seen.items()}, is_first, carry, generator=generators
        )
        labels.append(_numpy(target))
    means, stds = (np.stack(part, 1) for part in zip(*labels, strict=True))
    return [
        LabelledEpisode(e.observation, e.action, means[i, : len(e)], stds[i, : len(e)]) for i, e in enumerate(episodes)
    ]


def _labelled(trajectory: Trajectory, episode: Episode, policy: SharedPolicy) -> LabelledEpisode:
    mean = np.full_like(trajectory.action, np.nan)
    std = mean.copy()
    for row, call in enumerate(episode.calls[: len(trajectory)]):
        mean[row], std[row] = (part[episode.index] for part in policy.labels[call])
    return LabelledEpisode(trajectory.observation, trajectory.action, mean, std)


def _numpy(target: PlannerTarget) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    return target.mean.float().cpu().numpy(), target.std.float().cpu().numpy()
