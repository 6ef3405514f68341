"""How far a run is, and how long it will still take."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from worldmodel.spec import EnvSpec

# costs are means over a past that is forgotten: what lies far ahead is told by a long one, since a shared machine's
# speed comes and goes, what is near by a short one
HALF_LIVES_SECONDS = (60.0, 120.0, 240.0, 480.0)
HORIZON_SHARE = 0.5  # a half-life as a share of the time left
PAST_SHARE = 0.25  # at most this share of the time gone, so that how a run began is forgotten
FEWEST_LEARN_SECONDS = 5.0  # before that, what an update costs is a guess


@dataclass(frozen=True)
class Status:
    """The last known state of a run, None where nothing is known yet."""

    env_steps: int = 0
    total_env_steps: int | None = None  # how long the run is; None where it is as long as its updates
    decisions: int | None = None
    updates: int | None = None
    total_updates: int | None = None  # that all of the run will make, as far as is known
    evaluate_every: int | None = None  # env_steps, or updates where the run is as long as they are
    evaluation_episodes: int = 0
    final_episodes: int = 0  # of the evaluation at the end
    episode_steps: int = 0  # env_steps
    evaluation_envs: int = 1  # episodes that are played side by side, in one round
    step_s: float | None = None  # that an env_step of the agent is expected to cost, before it has made one
    phase: str | None = None
    train_return: float | None = None
    eval_return: float | None = None
    loss: float | None = None
    held_out: float | None = None  # error on held-out episodes

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
    def rounds_left(self) -> int:
        """Of evaluations' episodes, those of the final one and the one under way among them."""
        if not self.evaluate_every or self.total is None:
            return 0
        before_the_end = max(0, -(-self.total // self.evaluate_every) - 1 - self.position // self.evaluate_every)
        under_way = 1 if self.phase == "evaluate" and self.position < self.total else 0
        return self.rounds(self.evaluation_episodes) * (before_the_end + under_way) + self.rounds(self.final_episodes)

    def rounds(self, episodes: int) -> int:
        """How many times an evaluation of that many episodes fills its environments."""
        return -(-episodes // max(1, self.evaluation_envs))


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
        known |= {"evaluation_envs": evaluation["envs"]}
    return known


class TimeLeft:
    """Seconds to a run's end, by what is still to be done and what each kind of it has cost: updates, steps, rounds.

    Time is booked on the phase in which it passed, and old times weigh less than new ones.
    """

    def __init__(self, now: float) -> None:
        self._now = self._began = self._phase_began = now
        self._costs = [_Costs(half_life) for half_life in HALF_LIVES_SECONDS]
        self._learned = 0.0  # seconds, of which none is forgotten

    def advance(self, before: Status, after: Status, now: float) -> None:
        """Book the time since the last call on the phase that it was in."""
        passed, self._now = now - self._now, now
        gains, seconds = self._gains(before, after), dict[str, float]()
        phase = "learn" if before.phase == "validate" else before.phase
        if phase in ("seed", "learn", "collect"):
            seconds[phase] = passed
        if phase == "learn":
            self._learned += passed
        if before.phase != after.phase:
            if before.phase == "evaluate":
                seconds["evaluate"] = now - self._phase_began
            self._phase_began = now
        for costs in self._costs:
            costs.book(seconds, gains, passed)

    def seconds(self, status: Status) -> float | None:
        """Until the end, None while nobody can tell."""
        left = self._seconds(status, self._costs[-1])
        if left is None:
            return None
        wanted = min(HORIZON_SHARE * left, PAST_SHARE * (self._now - self._began))
        return self._seconds(status, min(self._costs, key=lambda costs: abs(costs.half_life - wanted)))

    @property
    def updates_per_s(self) -> float | None:
        """While the run learns, at present."""
        cost = self._costs[1].of("learn")
        return 1 / cost if cost and self._learned > 1 else None

    def _gains(self, before: Status, after: Status) -> dict[str, float]:
        """What was done since the last call, by the phase that did it."""
        gains = dict[str, float]()
        # the first number that a resumed run hears of is where it continues, and costs nothing
        if before.updates is not None:
            gains["learn"] = (after.updates or 0) - before.updates
        if before.phase in ("seed", "collect"):
            gains[before.phase] = after.env_steps - before.env_steps
        if before.phase == "evaluate" and after.phase != "evaluate":
            final = before.total is not None and before.position >= before.total
            gains["evaluate"] = before.rounds(before.final_episodes if final else before.evaluation_episodes)
        return gains

    def _seconds(self, status: Status, costs: "_Costs") -> float | None:
        update, step, played = (costs.of(phase) for phase in ("learn", "collect", "evaluate"))
        if update is None or self._learned < FEWEST_LEARN_SECONDS or status.total_updates is None:
            return None
        left = max(0, status.total_updates - (status.updates or 0)) * update
        if step is None:  # while the first updates catch up, the agent has played nothing
            step = (status.step_s or 0.0) + (costs.of("seed") or 0.0)
        if status.total_env_steps is not None:
            left += (status.total_env_steps - status.position) * step
        # before the first evaluation: a round of it costs about what collecting an episode does
        played = played if played is not None else step * status.episode_steps
        in_it = self._now - self._phase_began if status.phase == "evaluate" else 0.0
        return max(left, left + status.rounds_left * played - in_it)


class _Costs:
    """Seconds that one unit of each phase has cost, as a mean over a past that is forgotten by half in `half_life`."""

    def __init__(self, half_life: float) -> None:
        self.half_life = half_life
        self._seconds, self._units = dict[str, float](), dict[str, float]()

    def book(self, seconds: Mapping[str, float], units: Mapping[str, float], passed: float) -> None:
        """Forget for the seconds that passed, and take in what they were spent on and what came of them."""
        fade = 0.5 ** (passed / self.half_life)
        for known, new in ((self._seconds, seconds), (self._units, units)):
            for phase in known:
                known[phase] *= fade
            for phase, value in new.items():
                known[phase] = known.get(phase, 0.0) + max(0.0, value)

    def of(self, phase: str) -> float | None:
        """Seconds of one unit, None before the first."""
        units = self._units.get(phase, 0.0)
        return self._seconds.get(phase, 0.0) / units if units > 0 else None
