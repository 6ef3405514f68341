"""Observation in, safe action out, on time: never an exception, never a number that is not finite or out of bounds."""

import operator
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from datamodules.observation import Observation
from trainers.bundle.bundle import Acting, Bundle, read_bundle
from trainers.command.configuration import BadConfig
from trainers.deployment.action_gate import Action, ActionGate
from trainers.deployment.goal import require_plans_to_goals
from trainers.deployment.lateness import Lateness
from trainers.deployment.observation_gate import ObservationGate, Refused
from trainers.deployment.planner_watchdog import PlannerProcess, start_planner_process
from trainers.deployment.planning import DeadlinePlanner, Planned, Planning, Request
from trainers.deployment.state_estimator import Latent, NotFinite, StateEstimator
from trainers.deployment.status import Status
from trainers.deployment.surprise import Surprise
from trainers.deployment.telemetry import Telemetry
from trainers.process.garbage import short_collections
from worldmodel.agents.latent_mpc import LatentMPC
from worldmodel.limits import require_number

SHARE = 0.7  # of a period that a decision may take: the rest is for transport and the system's own delays
PLANNERS = ("process", "inline")  # by name
SETTLE = 10  # rows, each the picture of a goal, after which the filter has settled on standing still there
NAN = float("nan")


class Chosen(NamedTuple):
    """An action in [-1, 1] that one rung of the ladder offers."""

    source: str
    action: NDArray[np.float32]
    age: int


@dataclass(slots=True)
class _Decision:
    """What is known of the decision under way."""

    number: int
    start: float
    until: float
    observation: str = "ok"
    filter_ms: float = NAN
    value: float = NAN
    message: str = ""


class Controller:
    """Runs a bundle's agent at a fixed rate.

    Every step walks down a ladder until something can be trusted: a new plan, what is left of the last one, the
    policy, the declared safe action; after `limits.faults` safe actions in a row it stops until `release`.

    Args:
        bundle: as read, or its folder.
        hz: decisions per second; the bundle's own by default.
        budget_s: seconds from an observation to its action; 0.7 of a period by default.
        planner: "process", where a planner that hangs is killed and started again, "inline", which is simpler and
            trusts it, or a `Planning` that others share.
        seed: of the planner's noise.
        device: what the robot has, see `ControlSpec.require_device`.

    Raises:
        UserError: a damaged bundle, one for another device, a planner that does not start. Nothing later raises.
    """

    def __init__(
        self,
        bundle: Bundle | str | Path,
        *,
        hz: float | None = None,
        budget_s: float | None = None,
        planner: Planning | str = "process",
        seed: int = 0,
        device: Mapping[str, Any] | None = None,
    ) -> None:
        self.bundle = bundle if isinstance(bundle, Bundle) else read_bundle(bundle)
        self.control = self.bundle.control if hz is None else replace(self.bundle.control, hz=hz)
        if device is not None:
            self.control.require_device(device)
        self.period_s = 1 / self.control.hz
        self.budget_s = SHARE * self.period_s if budget_s is None else budget_s
        require_number(budget_s=self.budget_s, above=0)
        self._agent = agent = self.bundle.build()
        self._estimator = StateEstimator(agent, delay=self.control.delay)
        self._observations = ObservationGate(self.control, _vector_statistics(agent))
        self._actions = ActionGate(self.control)
        self._surprise = Surprise(self.control.limits.prediction_error)
        self._policy = None if self.bundle.what == "planner" else agent.actor
        self._policy_s = self._warm_up()
        self._lateness = Lateness.within(self.period_s, budget_s=self.budget_s)
        self._resources = ExitStack()
        self.planner = self._start_planner(planner)
        self._goal: Latent | None = None
        self._seed, self.stopped, self._faults = operator.index(seed), False, 0
        self._last_action, self._last_source = self._actions.safe()[0], "safe"
        self.telemetry = Telemetry(first="policy" if self.bundle.what == "policy" else "plan")
        self.reset()
        self._resources.enter_context(short_collections())

    def reset(self) -> None:
        """Begin an episode; a latched stop stays, and what it holds."""
        self._estimator.reset()
        self._observations.reset()
        if not self.stopped:
            self._actions.reset()
        self._surprise.reset()
        self._plan: NDArray[np.float32] = self._agent.initial_carry(1).plan[0].numpy()
        self._plan_number = -1
        self._number = self._missing = self._goal_number = 0

    def release(self) -> None:
        """End a latched stop by hand; where the robot is now is inferred anew from what it sees next.

        Of a camera that was started again as well, whose frames are numbered from 0 on.
        """
        self.stopped, self._faults = False, 0
        self._observations.reset()
        self._estimator.forget()
        self._plan_number = -1

    def close(self) -> None:
        """End the planner's process, where this controller started it."""
        self._resources.close()

    def __enter__(self) -> "Controller":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def step(self, observation: Any, stamp: float | None = None, sequence: int | None = None) -> tuple[Action, Status]:
        """The action for what is seen now; never raises.

        Args:
            observation: frames uint8 [height, width, c] and vectors [d] by name, or the only one alone; None where
                none came.
            stamp: seconds of time.monotonic() at the capture; None for now.
            sequence: the camera's own number of the frame.

        Returns:
            float32 [A] in the robot's units within its bounds (the number of one, int64, where actions are discrete),
            and where it comes from.
        """
        start = time.monotonic()
        decision = _Decision(self._number, start, start + self.budget_s)
        try:
            offers = self._offers(decision, observation, stamp, sequence)
            action, status = self._first_admitted(offers, decision)
        except Exception as error:  # noqa: BLE001 - whatever it is, the robot needs an action
            decision.message = f"{type(error).__name__}: {error}"
            action, status = self._give_up(decision)
        self._number += 1
        self.telemetry.add(status, action)
        return action, status

    @property
    def horizon(self) -> int:
        """H of `chunk`: the planner's, and at least what bridges late replies where the policy alone acts."""
        return max(len(self._plan), 1 + self.control.limits.plan_age)

    def chunk(self) -> NDArray[Any]:
        """The actions [H, ...] that the last plan would take from the last step on, in the robot's units.

        Where it is of no plan, such as the safe action of a robot that stopped, that action again and again; before
        the first step the safe action.
        """
        planned = self._last_source in ("plan", "shifted_plan")
        rest = self._plan[self._number - 1 - self._plan_number :] if planned else self._plan[:0]
        gate = ActionGate(self.control)
        first = self._last_action
        gate.admit_native(first)  # the limit of change counts from it on
        rows = [first]
        for row in rest[1:]:
            admitted = gate.admit(row)
            rows.append(rows[-1] if admitted is None else admitted[0])
        return np.stack(rows + [rows[-1]] * (self.horizon - len(rows)))

    def set_goal(self, frames: Any) -> None:
        """Plan to what a picture shows instead of for the learned reward; None ends that.

        Args:
            frames: an observation as `step` takes it.

        Raises:
            Refused: it is no observation of this agent.
            BadConfig: the bundle has a policy alone, which was learned for its reward, or a planner that needs rewards.
        """
        if frames is not None and self.bundle.what == "policy":
            raise BadConfig("goal: expected a bundle that plans, exported with what=planner or what=both, got a policy")
        goal: Latent | None = None
        if frames is not None:
            rows = ObservationGate(self.control, {}).check(frames, None, None)
            estimator = StateEstimator(self._agent, delay=0)
            for _ in range(SETTLE):
                estimator.see(rows)
            goal = estimator.ahead()
            assert isinstance(self._agent, LatentMPC)
            require_plans_to_goals(self._agent, goal)
        self._goal = goal  # the last: of a picture that is refused the robot keeps the goal that it had
        self._goal_number = self._number  # what was planned before leads elsewhere

    def _offers(
        self, decision: _Decision, observation: Any, stamp: float | None, sequence: int | None
    ) -> Iterator[Chosen]:
        """From the best to the last resort; each is only computed where the one before was not taken."""
        if self.stopped:
            self._estimator.look_away()
            self._look(decision, observation, stamp, sequence)
            return
        latent = self._locate(decision, observation, stamp, sequence)
        if latent is None:
            return
        if self.planner is not None:
            planned = self._ask(self.planner, latent, decision)
            if planned is not None:
                self._plan, self._plan_number, decision.value = planned.mean, decision.number, planned.value
                yield Chosen("plan", planned.mean[0], 0)
            elif not decision.message:
                starts = isinstance(self.planner, PlannerProcess) and not self.planner.ready
                decision.message = f"planner: {'its process is started again' if starts else 'no plan in time'}"
        age = decision.number - self._plan_number
        if self._plan_number >= self._goal_number and 0 < age <= self.control.limits.plan_age and age < len(self._plan):
            yield Chosen("shifted_plan", self._plan[age], age)
        if self._policy is not None and self._goal is None:
            with torch.no_grad():
                action = self._policy.mode(torch.from_numpy(latent.copy())[None])[0]
            yield Chosen("policy", action.numpy(), -1)

    def _locate(
        self, decision: _Decision, observation: Any, stamp: float | None, sequence: int | None
    ) -> Latent | None:
        """The latent to act from; None where the robot is lost."""
        rows = self._look(decision, observation, stamp, sequence)
        try:
            if rows is not None:
                self._estimator.see(rows)
                self._missing = 0
        except NotFinite as error:
            self._refused(decision, error)
            rows = None
        self._missing += rows is None
        try:
            if self._missing:
                self._estimator.miss()
            if self._missing > self.control.limits.missing:
                return None
            return self._estimator.ahead()
        except NotFinite as error:
            decision.message = decision.message or str(error)
            return None
        finally:
            decision.filter_ms = 1e3 * (time.monotonic() - decision.start)

    def _look(
        self, decision: _Decision, observation: Any, stamp: float | None, sequence: int | None
    ) -> Observation | None:
        """The observation where it is one to act on, else what is wrong with it: of a robot that stopped as well."""
        try:
            return self._observations.check(observation, stamp, sequence)
        except Refused as error:
            self._refused(decision, error)
            return None

    @staticmethod
    def _refused(decision: _Decision, error: Refused | NotFinite) -> None:
        decision.observation, decision.message = error.wrong, str(error)

    def _ask(self, planner: Planning, latent: Latent, decision: _Decision) -> Planned | None:
        age = decision.number - self._plan_number
        warm = np.full_like(self._plan, NAN)
        if self._plan_number >= 0 and age < len(warm):
            warm[: len(warm) - age] = self._plan[age:]
            warm[len(warm) - age :] = self._plan[-1]
        seed = (self._seed * 1_000_003 + decision.number) % 2**63
        request = Request(latent, warm, seed, self._goal)
        until = decision.until - self._policy_s - self._lateness.reserve_s
        planned = planner.ask(request, until=until)
        self._lateness.add(time.monotonic() - until)
        return planned

    def _first_admitted(self, offers: Iterator[Chosen], decision: _Decision) -> tuple[Action, Status]:
        for offer in offers:
            admitted = self._actions.admit(offer.action)
            if admitted is not None:
                action, unit, limited = admitted
                self._estimator.commanded(unit)
                self._faults = 0
                return self._done(action, decision, offer.source, age=offer.age, limited=limited)
            decision.message = decision.message or f"{offer.source}: expected finite numbers, got {offer.action}"
        return self._give_up(decision)

    def _give_up(self, decision: _Decision) -> tuple[Action, Status]:
        action, unit = self._actions.safe()
        self._estimator.commanded(unit)
        self._faults += 1
        self.stopped = self.stopped or self._faults >= self.control.limits.faults
        return self._done(action, decision, "stopped" if self.stopped else "safe", age=-1, limited=False)

    def _done(
        self, action: Action, decision: _Decision, source: str, *, age: int, limited: bool
    ) -> tuple[Action, Status]:
        self._last_action, self._last_source = action, source
        error = self._estimator.prediction_error
        latency_s = time.monotonic() - decision.start
        return action, Status(
            number=decision.number,
            source=source,
            observation=decision.observation,
            late=latency_s > self.period_s,
            latency_ms=1e3 * latency_s,
            margin_ms=1e3 * (self.budget_s - latency_s),
            filter_ms=decision.filter_ms,
            plan_age=age,
            faults=self._faults,
            limited=limited,
            predicted_return=decision.value,
            prediction_error=error,
            disagreement=self._estimator.disagreement,
            alarm=self._surprise.alarms(error),
            message=decision.message,
        )

    def _warm_up(self) -> float:
        """Run the filter and the policy a few times; returns the seconds to keep for the policy."""
        env, seconds = self.control.env, 0.0
        rows: dict[str, NDArray[Any]] = {name: np.zeros(shape, np.uint8) for name, shape in env.images.items()}
        rows |= {name: np.zeros(size, np.float32) for name, size in env.vectors.items()}
        for _ in range(5):
            self._estimator.see(rows)
            latent = torch.from_numpy(self._estimator.ahead().copy())[None]
            start = time.monotonic()
            if self._policy is not None:
                with torch.no_grad():
                    self._policy.mode(latent)
            seconds = time.monotonic() - start
        return seconds

    def _start_planner(self, planner: Planning | str) -> Planning | None:
        """None of a bundle whose policy acts alone."""
        if planner not in PLANNERS and not isinstance(planner, Planning):
            raise BadConfig(f"planner: expected inline, process or a Planning, got {planner!r}")
        if self.bundle.what == "policy":
            return None
        if isinstance(planner, Planning):
            return planner
        started = self._start_own_planner(planner)
        self._resources.callback(started.close)
        return started

    def _start_own_planner(self, planner: str) -> Planning:
        assert isinstance(self._agent, LatentMPC)
        if planner == "inline":
            return DeadlinePlanner(self._agent, budget_s=self.budget_s)
        times = {"budget_s": self.budget_s, "period_s": self.period_s}
        return start_planner_process(self.bundle, self._agent, **times)


def _vector_statistics(agent: Acting) -> dict[str, tuple[NDArray[Any], NDArray[Any]]]:
    parts: Any = zip(agent.norm.names, agent.norm.parts, strict=True)
    return {name: (part.mean.numpy(), part.std.numpy()) for name, part in parts if getattr(part, "measured", False)}
