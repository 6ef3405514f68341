"""How far a run is, and how long it will still take."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from worldmodel.spec import EnvSpec

HALF_LIFE_SECONDS = 120.0  # what a step costs is learned anew when the machine gets slower
FEWEST_LEARN_SECONDS = 5.0  # before that, what an update costs is a guess


@dataclass(frozen=True)
class Status:
    """The last known state of a run, None where nothing is known yet.

    Args:
        total_env_steps: how long the run is; None where it is as long as its updates.
        total_updates: that all of the run will make, as far as is known.
        evaluate_every: env_steps, or updates where the run is as long as they are, between two evaluations of
            evaluation_episodes, with final_episodes at the end; each of episode_steps env_steps.
        held_out: error on held-out episodes.
    """

    env_steps: int = 0
    total_env_steps: int | None = None
    decisions: int | None = None
    updates: int | None = None
    total_updates: int | None = None
    evaluate_every: int | None = None
    evaluation_episodes: int = 0
    final_episodes: int = 0
    episode_steps: int = 0
    phase: str | None = None
    train_return: float | None = None
    eval_return: float | None = None
    loss: float | None = None
    held_out: float | None = None

    @property
    def counts_updates(self) -> bool:
        """Whether the run is as long as its updates, not as its env_steps."""
        return self.total_env_steps is None and self.total_updates is not None

    @property
    def position(self) -> int:
        """How far the run is, at most to its end: whole episodes may end a little later."""
        position = (self.updates or 0) if self.counts_updates else self.env_steps
        return position if self.total is None else min(position, self.total)

    @property
    def total(self) -> int | None:
        """How long the run is."""
        return self.total_updates if self.counts_updates else self.total_env_steps

    @property
    def episodes_left(self) -> int:
        """Of evaluations, the final one and the one under way among them."""
        if not self.evaluate_every or self.total is None:
            return 0
        before_the_end = max(0, -(-self.total // self.evaluate_every) - 1 - self.position // self.evaluate_every)
        under_way = self.evaluation_episodes if self.phase == "evaluate" and self.position < self.total else 0
        return self.evaluation_episodes * before_the_end + under_way + self.final_episodes


def planned(config: Mapping[str, Any], spec: EnvSpec) -> dict[str, int]:
    """What a configured run will do in `spec`, as far as it is known before: fields of Status."""
    data, evaluation, env_steps = config["data"], config["evaluation"], config["task"].get("env_steps", 0)
    known: dict[str, int] = {}
    if "updates" in data:
        known["total_updates"] = data["updates"]
    elif "update_ratio" in data:
        known["total_updates"] = round(data["update_ratio"] * env_steps / spec.action_repeat)
    if config["task"]["source"] is not None and data.get("evaluate", True):
        known |= {"evaluate_every": evaluation["every"], "evaluation_episodes": evaluation["episodes"]}
        known |= {"final_episodes": evaluation["final_episodes"], "episode_steps": spec.episode_steps}
    return known


class TimeLeft:
    """Seconds to a run's end, by what is still to be done and what each kind of it has cost: updates, steps, episodes.

    Time is booked on the phase in which it passed, and old times weigh less than new ones.
    """

    def __init__(self, now: float) -> None:
        self._now = self._phase_began = now
        self._seconds, self._units = dict.fromkeys(("learn", "collect", "evaluate"), 0.0), dict[str, float]()

    def advance(self, before: Status, after: Status, now: float) -> None:
        """Book the time since the last call on the phase that it was in."""
        passed, self._now = now - self._now, now
        fade = 0.5 ** (passed / HALF_LIFE_SECONDS)
        self._seconds = {phase: fade * seconds for phase, seconds in self._seconds.items()}
        self._units = {phase: fade * units for phase, units in self._units.items()}
        phase = "learn" if before.phase == "validate" else before.phase
        if phase in ("learn", "collect"):
            self._seconds[phase] += passed
        # the first number that a resumed run hears of is where it continues, and costs nothing
        if before.updates is not None:
            self._gain("learn", (after.updates or 0) - before.updates)
        if before.phase == "collect":
            self._gain("collect", after.env_steps - before.env_steps)
        if before.phase != after.phase:
            if before.phase == "evaluate":
                final = before.total is not None and before.position >= before.total
                self._gain("evaluate", before.final_episodes if final else before.evaluation_episodes)
                self._seconds["evaluate"] += now - self._phase_began
            self._phase_began = now

    def seconds(self, status: Status) -> float | None:
        """Until the end, None while nobody can tell."""
        update, step, episode = (self._cost(phase) for phase in ("learn", "collect", "evaluate"))
        if update is None or self._seconds["learn"] < FEWEST_LEARN_SECONDS or status.total_updates is None:
            return None
        left = max(0, status.total_updates - (status.updates or 0)) * update
        if status.total_env_steps is not None:
            left += (status.total_env_steps - status.position) * (step or 0.0)
        # before the first evaluation: an episode of it costs about what collecting one does
        played = episode if episode is not None else (step or 0.0) * status.episode_steps
        in_it = self._now - self._phase_began if status.phase == "evaluate" else 0.0
        return max(left, left + status.episodes_left * played - in_it)

    @property
    def updates_per_s(self) -> float | None:
        """While the run learns."""
        cost = self._cost("learn")
        return 1 / cost if cost and self._seconds["learn"] > 1 else None

    def _gain(self, phase: str, units: float) -> None:
        self._units[phase] = self._units.get(phase, 0.0) + max(0.0, units)

    def _cost(self, phase: str) -> float | None:
        units = self._units.get(phase, 0.0)
        return self._seconds[phase] / units if units > 0 else None
