"""Gymnasium's vector environments: `lanes` environments that one process steps together.

All lanes of a vector environment step at once, so a lane whose episode has ended plays on unseen until it is reset;
no row of what it does there is ever returned. What reset and step return are exactly the episodes asked for, in each
of Gymnasium's autoreset modes (https://farama.org/Vector-Autoreset-Mode):
- NextStep: the step after an end yields an opening row only, which is dropped;
- SameStep: an end's observation is in info["final_obs"], the returned one opens the next episode;
- Disabled: ended lanes are reset by a mask before the next step.

Seeds. Where all open lanes are reset together, as `rollout.play` does, each lane gets the seed of its own if Gymnasium
steps single environments (vectorization="sync"). An environment vectorised by itself takes one seed for all lanes,
here a hash of them: the same seeds still give the same rows. A lane can be reset while others play if its environment
takes a reset mask (sync, Disabled); any other one gives the opening that it is at by itself, or refuses.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datamodules.envs import gl, gym
from datamodules.envs.actions import actions_of
from datamodules.envs.checks import checked_action, checked_reward, require_open
from datamodules.envs.errors import BadObservation, BadOption, Diverged, UnknownTask
from datamodules.envs.images import as_colour
from datamodules.envs.import_path import import_callable
from datamodules.envs.protocol import Step
from datamodules.envs.simulation import require_intact
from datamodules.envs.spaces import Observer, choose_observer
from datamodules.observation import Observation
from worldmodel.spec import EnvSpec

# images [h, w, C] as they come, and vectors
Seen = tuple[dict[str, NDArray[np.uint8]], Observation]
NEXT_STEP, SAME_STEP, DISABLED = "NextStep", "SameStep", "Disabled"


def make_lanes(
    *,
    task: str,
    lanes: int,
    size: int | Mapping[str, int] = 64,
    action_repeat: int = 1,
    episode_steps: int | None = None,
    observe: str | Sequence[str] = "auto",
    pixels: str = "auto",
    image_key: str | None = None,
    vectorization: str = "sync",
    autoreset: str = "Disabled",
    kwargs: Mapping[str, Any] | None = None,
    gpu: gl.GPU | None = None,
) -> "VectorLanes":
    """Open `lanes` environments of a Gymnasium id, or the VectorEnv that `package.module:function(num_envs)` returns.

    vectorization: "sync" steps single environments, with `autoreset`; "native" is the one that the id brings along,
    whose autoreset mode is its own. The rest as in gym.make. Raises UnknownTask, BadOption, BadSpace, MissingPackage.
    """
    gym.check_options(size=size, action_repeat=action_repeat, episode_steps=episode_steps, pixels=pixels)
    if vectorization not in ("sync", "native"):
        raise BadOption(
            f"expected sync or native (source=gym runs processes), got {vectorization!r}", key="vectorization"
        )
    if autoreset not in (NEXT_STEP, SAME_STEP, DISABLED):
        raise BadOption(f"expected {NEXT_STEP}, {SAME_STEP} or {DISABLED}, got {autoreset!r}", key="autoreset")
    draws = gym.may_draw(observe, pixels)
    gymnasium, options = gym.import_gymnasium(gpu=gpu, draws=draws), dict(kwargs or {})
    with gym.typed_errors(gymnasium, task), gym.gl_for(observe):
        spec = gym.registered_spec(gymnasium, task)
        if spec is None:
            creator = import_callable(task)
            options = {"num_envs": lanes, **gym.drawing(creator, draws, options)}
            gym.require_arguments(creator, task, options)
            env = creator(**options)
        elif vectorization == "sync":
            extra = {"vector_kwargs": {"autoreset_mode": autoreset}, "disable_env_checker": True}
            env = _make_vec(gymnasium, spec, "entry_point", lanes, draws, episode_steps, options, extra)
        else:
            env = _make_vec(gymnasium, spec, "vector_entry_point", lanes, draws, episode_steps, options, {})
    if not isinstance(env, gymnasium.vector.VectorEnv) or env.num_envs != lanes:
        got = f"{type(env).__name__} with {getattr(env, 'num_envs', 'no')} lanes"
        raise UnknownTask(f"expected a gymnasium.vector.VectorEnv with {lanes} lanes from {task}, got {got}")
    chosen: dict[str, Any] = {"observe": observe, "pixels": pixels, "image_key": image_key}
    observer = choose_observer(env.single_observation_space, env.render_mode, **chosen)
    sizes: dict[str, Any] = {"size": size, "action_repeat": action_repeat, "episode_steps": episode_steps}
    seen = gym.spec_of(env, observer, env.single_action_space, task=task, **sizes)
    by_lane = isinstance(env.unwrapped, gymnasium.vector.SyncVectorEnv | gymnasium.vector.AsyncVectorEnv)
    singles = env.envs if isinstance(env.unwrapped, gymnasium.vector.SyncVectorEnv) else []
    notes = [gym.notes_on(single, observer, options) for single in singles]
    said = notes[0] if notes else observer.notes
    return VectorLanes(env, observer, seen, by_lane=by_lane, singles=singles, notes=said)


def _make_vec(
    gymnasium: Any,
    spec: Any,
    entry: str,
    lanes: int,
    draws: bool,
    episode_steps: int | None,
    kwargs: dict[str, Any],
    extra: dict[str, Any],
) -> Any:
    creator = getattr(spec, entry)
    if creator is None:
        raise BadOption(f"{spec.id} brings no vector environment along, use sync", key="vectorization")
    creator = creator if callable(creator) else gymnasium.envs.registration.load_env_creator(creator)
    options = gym.drawing(creator, draws, {**spec.kwargs, **kwargs})
    gym.require_arguments(creator, spec.id, options if entry == "entry_point" else {"num_envs": lanes, **options})
    limit = {} if episode_steps is None else {"max_episode_steps": episode_steps}
    mode = "sync" if entry == "entry_point" else entry
    return gymnasium.make_vec(spec.id, num_envs=lanes, vectorization_mode=mode, **{**limit, **extra, **options})


class VectorLanes:
    """The lanes of one vector environment; `by_lane`: it takes a seed for each lane, and a reset mask.

    singles: the environments that it steps one by one, where it does.
    """

    def __init__(
        self,
        env: Any,
        observer: Observer,
        spec: EnvSpec,
        *,
        by_lane: bool,
        singles: Sequence[Any] = (),
        notes: Sequence[str] = (),
    ) -> None:
        self.spec, self.notes, self._simulations = spec, tuple(notes), [single.unwrapped for single in singles]
        self.env, self.count, self._observer, self._by_lane = env, int(env.num_envs), observer, by_lane
        self._mode = autoreset_mode(env)
        if self._mode == SAME_STEP and observer.draws:
            raise BadOption(
                f"{spec.task} resets ended lanes before they can be drawn, expected image observations", key="pixels"
            )
        self._actions = actions_of(env.single_action_space)
        self._seen: list[Seen] = [({}, {})] * self.count
        self._steps: dict[int, int] = {}  # control steps of the open episodes
        self._ended = np.ones(self.count, np.bool_)  # the environment's own episode is over
        self._openings: dict[int, Seen] = {}  # what is seen of the lanes that stand at an opening of their own

    def reset(self, seeds: dict[int, int]) -> dict[int, Step]:
        """Open an episode in each lane of {lane: seed} while the others go on; see above for what a seed does."""
        others = self._steps.keys() - seeds.keys()
        if others and not self._by_lane and self._mode != DISABLED:
            seen = self._take_openings(seeds, others)
        else:
            observation = self._reset_env(seeds, everything=not others)
            seen = self._read(observation, seeds.keys())
        for lane, one in seen.items():
            self._steps[lane], self._seen[lane] = 0, one
        return {lane: Step(self._observed(lane), 0.0, True, False, False, env_steps=0) for lane in seeds}

    def step(self, actions: Mapping[int, NDArray[np.floating]]) -> dict[int, Step]:
        """Repeat {lane: action [A]} for action_repeat control steps, each lane until its end, and sum rewards.

        No lane can wait: one that is open and gets no action is given up, and needs a reset. Raises BadAction,
        BadReward, BadObservation, Diverged and NotReset.
        """
        require_open(actions.keys() <= self._steps.keys())
        self._steps = {lane: self._steps[lane] for lane in actions}
        native = self._native(actions)
        rewards, before, rows = dict.fromkeys(actions, 0.0), dict(self._steps), {}
        for repeat in range(self.spec.action_repeat):
            running = list(self._steps)
            if not running:
                break
            # a copy for every call: an environment may change in place what it is given
            observation, gained, terminated, info = self._step_env(native.copy())
            self._require_intact(running)
            for lane in running:
                rewards[lane] += checked_reward(gained[lane])
                self._steps[lane] += 1
            limited = {lane for lane in running if self._steps[lane] >= self.spec.episode_steps}
            ends = [lane for lane in running if self._ended[lane] or lane in limited]
            shown = running if repeat == self.spec.action_repeat - 1 else ends
            self._see(shown, observation, info)
            for lane in shown:
                taken, last = self._steps[lane] - before[lane], lane in ends
                flags = (False, last, last and bool(terminated[lane]))
                rows[lane] = Step(self._observed(lane), rewards[lane], *flags, env_steps=taken)
            for lane in ends:
                del self._steps[lane]
        return rows

    def render(self, lane: int, size: int) -> NDArray[np.uint8]:
        """A lane's last image, the first of several, before it was resized, as uint8 [size, size, 3], for videos."""
        return as_colour(gym.first_image(self._seen[lane][0]), size)

    def close(self) -> None:
        self.env.close()

    def _reset_env(self, seeds: dict[int, int], *, everything: bool) -> Any:
        seed: Any = [seeds.get(lane, 0) % gym.SEEDS for lane in range(self.count)]
        if not self._by_lane:
            seed = shared_seed(seeds, self.count)
        lanes = list(range(self.count) if everything else seeds)
        observation, _ = self.env.reset(seed=seed, options=None if everything else self._mask(lanes))
        self._ended[lanes] = False
        self._openings.clear()
        return observation

    def _step_env(self, native: NDArray[Any]) -> tuple[Any, Any, Any, dict[str, Any]]:
        if self._mode == DISABLED and self._ended.any():
            self.env.reset(options=self._mask(self._ended.nonzero()[0]))
        opened = self._ended.copy() if self._mode == NEXT_STEP else np.zeros(self.count, np.bool_)
        observation, rewards, terminated, truncated, info = self.env.step(native)
        self._ended = np.logical_or(terminated, truncated)
        if self._mode == SAME_STEP:
            opened = self._ended
        if not self._by_lane:
            self._openings = self._read(observation, opened.nonzero()[0].tolist())
        return observation, rewards, terminated, info

    def _require_intact(self, running: list[int]) -> None:
        if not self._simulations:
            return
        try:
            for lane in running:
                require_intact(self._simulations[lane])
        except Diverged:
            self._steps.clear()  # what fails one lane fails all of them
            raise

    def _take_openings(self, seeds: dict[int, int], others: set[int]) -> dict[int, Seen]:
        if late := seeds.keys() - self._openings.keys():
            raise BadOption(
                f"{self.spec.task} takes no reset mask, so lanes {sorted(late)} cannot be opened "
                f"while lanes {sorted(others)} play: reset all together",
                key="reset",
            )
        return {lane: self._openings.pop(lane) for lane in seeds}

    def _mask(self, lanes: Any) -> dict[str, NDArray[np.bool_]]:
        mask = np.zeros(self.count, np.bool_)
        mask[lanes] = True
        return {"reset_mask": mask}

    def _native(self, actions: Mapping[int, NDArray[np.floating]]) -> NDArray[Any]:
        # ended lanes have to do something
        idle = np.zeros(self.spec.action_dim, np.float32)
        every = [actions.get(lane, idle) for lane in range(self.count)]
        return np.stack([self._actions.native(checked_action(a, action_dim=self.spec.action_dim)) for a in every])

    def _see(self, lanes: list[int], observation: Any, info: dict[str, Any]) -> None:
        """Take what is seen of lanes after a step, of their last state where they have ended."""
        final = [lane for lane in lanes if self._mode == SAME_STEP and self._ended[lane]]
        if final and "final_obs" not in info:
            raise BadObservation(f"info: expected final_obs with an end in SameStep, got {sorted(info)}")
        seen = self._read(observation, [lane for lane in lanes if lane not in final])
        if final:
            seen |= self._read(info["final_obs"], final)
        for lane, one in seen.items():
            self._seen[lane] = one

    def _read(self, observation: Any, lanes: Any) -> dict[int, Seen]:
        """What is seen of lanes, copies, since an environment may write the next ones into the same arrays."""
        frames = self.env.render() if self._observer.draws and len(lanes) else ()
        # final observations are an array of whole ones
        whole = isinstance(observation, np.ndarray) and observation.dtype == object
        return {
            lane: self._observer.read(
                observation[lane] if whole else observation,
                partial(self._drawn, frames, lane),
                None if whole else lane,
            )
            for lane in lanes
        }

    def _drawn(self, frames: Any, lane: int) -> NDArray[np.uint8]:
        return gym.drawn(frames[lane]).copy()

    def _observed(self, lane: int) -> Observation:
        images, vectors = self._seen[lane]
        return gym.resized(self.spec, images) | vectors


def shared_seed(seeds: Mapping[int, int], lanes: int) -> int:
    """One seed for {lane: seed}: the environment gives it to its first lane, and those that follow to the others."""
    return int(np.random.SeedSequence([*seeds.keys(), *seeds.values()]).generate_state(1)[0]) % (gym.SEEDS - lanes)


def autoreset_mode(env: Any) -> str:
    """Which autoreset mode a vector environment declares; raises BadOption where it declares none."""
    mode = env.metadata.get("autoreset_mode")
    name = getattr(mode, "value", mode)
    if name not in (NEXT_STEP, SAME_STEP, DISABLED):
        raise BadOption(f"expected an AutoresetMode in the environment's metadata, got {mode!r}", key="autoreset")
    return str(name)
