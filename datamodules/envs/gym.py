"""Any Gymnasium environment, by its id or by the import path of a function that returns one."""

import contextlib
import importlib
import inspect
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datamodules.envs import gl
from datamodules.envs.actions import actions_of
from datamodules.envs.checks import checked_action, checked_reward, require_bool, require_open, require_whole
from datamodules.envs.errors import BadObservation, BadOption, MissingGL, MissingPackage, UnknownTask
from datamodules.envs.images import area_resized, as_colour
from datamodules.envs.import_path import import_callable, import_module_of, is_import_path
from datamodules.envs.protocol import Step
from datamodules.envs.simulation import fix_view, require_intact
from datamodules.envs.spaces import STATE, Observer, choose_observer
from datamodules.observation import Observation
from worldmodel.spec import EnvSpec

# C code takes seeds as signed 32-bit numbers
SEEDS = 2**31
# what a call returns; Gym's before 0.26 returned other tuples
RESET, STEP = ("observation", "info"), ("observation", "reward", "terminated", "truncated", "info")
# whose ids have a namespace of another name than the module that registers them
_REGISTERED_BY = {"ALE": "ale_py", "Meta-World": "metaworld"}


def make(
    *,
    task: str,
    size: int | Mapping[str, int] = 64,
    action_repeat: int = 1,
    episode_steps: int | None = None,
    observe: str | Sequence[str] = "auto",
    pixels: str = "auto",
    image_key: str | None = None,
    remake: object = False,  # a configuration may say anything: it must be true or false
    kwargs: Mapping[str, Any] | None = None,
    gpu: gl.GPU | None = None,
) -> "GymEnv":
    """Open `task`, an id as gymnasium.make takes it or `package.module:function`, with [C, size, size] images.

    size: of all images, or of each by its name. episode_steps: control steps until truncation; needed where the
    environment is registered with none. observe: what is read, see spaces.py; by default all of an observation with an
    image, else a drawn frame. pixels: where frames come from, "auto" is the observation if it has an image, else
    render_mode="rgb_array". image_key: the only image that is read, as "pixels". remake: make the environment anew for
    every episode, where its reset keeps something of the last one.
    kwargs: for the environment's constructor. gpu: what draws with GL, its number in CUDA and its UUID.
    Raises UnknownTask, BadOption, BadSpace or MissingPackage.
    """
    check_options(size=size, action_repeat=action_repeat, episode_steps=episode_steps, pixels=pixels)
    require_bool("remake", remake)
    draws = may_draw(observe, pixels)
    gymnasium = import_gymnasium(gpu=gpu, draws=draws)

    def opened() -> Any:
        with gl_for(observe):
            return _open(gymnasium, task, draws, episode_steps, dict(kwargs or {}))

    def made_again() -> Any:
        env = opened()
        notes_on(env, observer, kwargs or {})
        return env

    env = opened()
    chosen: dict[str, Any] = {"observe": observe, "pixels": pixels, "image_key": image_key}
    observer = choose_observer(env.observation_space, env.render_mode, **chosen)
    sizes: dict[str, Any] = {"size": size, "action_repeat": action_repeat, "episode_steps": episode_steps}
    spec = spec_of(env, observer, env.action_space, task=task, **sizes)
    notes = notes_on(env, observer, kwargs or {})
    return GymEnv(env, observer, spec, notes=notes, remake=made_again if remake else None)


def may_draw(observe: str | Sequence[str], pixels: str) -> bool:
    """Whether an environment may have to draw, for which it must be built."""
    return pixels != "observation" and isinstance(observe, str) and observe != STATE


def gl_for(observe: str | Sequence[str]) -> contextlib.AbstractContextManager[None]:
    """Around the construction of an environment: no GL is loaded for its state alone, unless MUJOCO_GL asks for it."""
    return gl.disabled() if observe == STATE and "MUJOCO_GL" not in os.environ else contextlib.nullcontext()


def check_options(*, size: int | Mapping[str, int], action_repeat: int, episode_steps: int | None, pixels: str) -> None:
    """Raise BadOption for a value that no environment can have."""
    for side in size.values() if isinstance(size, Mapping) else (size,):
        require_whole("size", side, least=16)
    require_whole("action_repeat", action_repeat, least=1)
    if episode_steps is not None:
        require_whole("episode_steps", episode_steps, least=1)
    if pixels not in ("auto", "observation", "render"):
        raise BadOption(f"expected auto, observation or render, got {pixels!r}", key="pixels")


def import_gymnasium(*, gpu: gl.GPU | None, draws: bool = True) -> ModuleType:
    """Gymnasium, set up to draw without a screen; raises MissingPackage."""
    # not "dummy" on Linux, which some games take for "draw nothing": highway-env's frames are black then
    os.environ.setdefault("SDL_VIDEODRIVER", "offscreen" if sys.platform == "linux" else "dummy")
    # most environments draw without GL
    with contextlib.suppress(MissingGL):
        if draws:
            gl.choose_backend(gpu=gpu)
    try:
        import gymnasium
    except ModuleNotFoundError as error:
        raise MissingPackage("Gymnasium is not installed: run `pip install 'worldmodel[gym]'`") from error
    return gymnasium


def notes_on(env: Any, observer: Observer, kwargs: Mapping[str, Any]) -> tuple[str, ...]:
    """What a user would want to know of an environment that has drawn nothing yet; its view is fixed by the way."""
    view = fix_view(env, kwargs) if observer.draws else None
    said = [] if view is None else [f"frames are drawn by {view}; task.env.kwargs.camera_name chooses another"]
    return (*said, *observer.notes)


def known_limit(env: Any, task: str) -> int:
    """The control steps after which the registered environment is truncated; raises BadOption where it never is."""
    limit = getattr(env.spec, "max_episode_steps", None) or getattr(env.unwrapped, "max_episode_steps", None)
    if limit is None and env.spec is not None and "max_num_frames_per_episode" in env.spec.kwargs:
        # of an Atari game, in frames of the console
        limit = env.spec.kwargs["max_num_frames_per_episode"] // np.min(env.spec.kwargs.get("frameskip", 1))
    if limit is None:
        raise BadOption(
            f"expected a number of control steps, since {task} is registered with no time limit", key="episode_steps"
        )
    return int(limit)


def drawing(creator: Callable[..., Any], draws: bool, kwargs: dict[str, Any]) -> dict[str, Any]:
    """A constructor's arguments, with render_mode="rgb_array" where it knows that and frames may be needed."""
    metadata = getattr(creator, "metadata", None)
    known = isinstance(metadata, dict) and "rgb_array" in metadata.get("render_modes", ())
    takes = known or "render_mode" in inspect.signature(creator).parameters
    return {"render_mode": "rgb_array", **kwargs} if takes and draws else kwargs


@contextlib.contextmanager
def typed_errors(gymnasium: ModuleType, task: str) -> Any:
    """Turn what goes wrong in a construction into UnknownTask, BadOption or MissingPackage."""
    try:
        yield
    except gymnasium.error.DependencyNotInstalled as error:
        raise MissingPackage(f"{task}: {error}") from error
    except (gymnasium.error.Error, ModuleNotFoundError) as error:
        expected = "expected a Gymnasium id, package:Name-v0 where importing another package registers it, "
        raise UnknownTask(f"{expected}or package.module:function, got {task!r}: {error}") from error


def registered_spec(gymnasium: ModuleType, task: str) -> Any:
    """The registered spec of an id, None for `package.module:function`; raises what typed_errors expects.

    `module:id` imports the module first; `Namespace/id` imports one of that name where nobody did; an id without a
    version means the latest one.
    """
    module, _, name = task.rpartition(":")
    namespace = name.partition("/")[0] if "/" in name else ""
    registry = gymnasium.envs.registration
    if module:
        import_module_of(task)
    elif namespace and not any(spec.namespace == namespace for spec in registry.registry.values()):
        with contextlib.suppress(ModuleNotFoundError):
            importlib.import_module(_REGISTERED_BY.get(namespace, namespace))
    if name not in registry.registry:
        if is_import_path(task):
            return None
        parts = registry.parse_env_id(name)
        name = (
            name if parts[2] is not None else registry.get_env_id(*parts[:2], registry.find_highest_version(*parts[:2]))
        )
    return gymnasium.spec(name)


def require_arguments(creator: Callable[..., Any], task: str, kwargs: Mapping[str, Any]) -> None:
    """Raise BadOption unless a constructor takes keyword arguments of these names."""
    try:
        inspect.signature(creator).bind(**kwargs)
    except ValueError:  # a builtin that does not say what it takes
        return
    except TypeError as error:
        raise BadOption(f"{task} does not take them: {error}", key="kwargs") from error


def _open(gymnasium: ModuleType, task: str, draws: bool, episode_steps: int | None, kwargs: dict[str, Any]) -> Any:
    with typed_errors(gymnasium, task):
        spec = registered_spec(gymnasium, task)
        creator = import_callable(task) if spec is None else spec.entry_point
        creator = creator if callable(creator) else gymnasium.envs.registration.load_env_creator(creator)
        options = drawing(creator, draws, kwargs if spec is None else spec.kwargs | kwargs)
        require_arguments(creator, task, options)
        if spec is None:
            env = creator(**options)
        else:
            env = gymnasium.make(spec.id, max_episode_steps=episode_steps, disable_env_checker=True, **options)
    if not isinstance(env, gymnasium.Env):
        kind = type(env)
        raise UnknownTask(f"expected a gymnasium.Env from {task}, got a {kind.__module__}.{kind.__qualname__}")
    return env


def spec_of(
    env: Any,
    observer: Observer,
    action_space: Any,
    *,
    task: str,
    size: int | Mapping[str, int],
    action_repeat: int,
    episode_steps: int | None,
) -> EnvSpec:
    """Of an environment, or of a lane, of which `observer` reads images and vectors."""
    actions = actions_of(action_space)
    return EnvSpec(
        task=task,
        images=observer.shapes(size),
        vectors={name: reader.size for name, reader in observer.vectors.items()},
        action_dim=actions.dim,
        action_repeat=action_repeat,
        episode_steps=episode_steps or known_limit(env, task),
        discrete=actions.discrete,
        action_low=actions.bounds.get("action_low"),
        action_high=actions.bounds.get("action_high"),
        terminates=True,  # any of them may, and none says so
    )


class GymEnv:
    """One Gymnasium environment; `env` is it, `observer` says what is read of it.

    remake: makes another for each episode but the first; None keeps the one.
    """

    def __init__(
        self,
        env: Any,
        observer: Observer,
        spec: EnvSpec,
        *,
        notes: Sequence[str] = (),
        remake: Callable[[], Any] | None = None,
    ) -> None:
        self.env, self.spec, self._observer, self.notes = env, spec, observer, tuple(notes)
        self._actions = actions_of(env.action_space)
        self._images: dict[str, NDArray[np.uint8]] = {}
        self._control_steps, self._open = 0, False
        self._remake, self._used = remake, False

    def reset(self, seed: int) -> Step:
        """Open the episode of `seed`; it seeds the action space too."""
        if self._remake is not None and self._used:
            self.env.close()
            self.env = self._remake()
        self._used = True
        observation, _ = unpacked("reset", self.env.reset(seed=seed % SEEDS), RESET)
        self.env.action_space.seed(seed % SEEDS)
        self._control_steps, self._open = 0, True
        return Step(self._observed(observation), 0.0, is_first=True, is_last=False, is_terminal=False, env_steps=0)

    def step(self, action: NDArray[np.floating]) -> Step:
        """Repeat an action [A] for action_repeat control steps, or until the end, and sum rewards.

        Raises BadAction, BadReward, BadObservation, Diverged and NotReset.
        """
        require_open(self._open)
        native = self._actions.native(checked_action(action, action_dim=self.spec.action_dim))
        reward, taken, terminal, last = 0.0, 0, False, False
        while taken < self.spec.action_repeat and not last:
            # a copy for every call: an environment may change in place what it is given
            observation, gained, terminal, cut, _ = unpacked("step", self.env.step(native.copy()), STEP)
            require_intact(self.env.unwrapped)
            reward += checked_reward(gained)
            taken += 1
            last = terminal or cut or self._control_steps + taken >= self.spec.episode_steps
        self._control_steps += taken
        self._open = not last
        return Step(self._observed(observation), reward, False, bool(last), bool(terminal), env_steps=taken)

    def render(self, size: int) -> NDArray[np.uint8]:
        """The last image, the first of several, before it was resized, as uint8 [size, size, 3], for videos."""
        return as_colour(first_image(self._images), size)

    def close(self) -> None:
        self.env.close()

    def _observed(self, observation: Any) -> Observation:
        self._images, vectors = self._observer.read(observation, lambda: drawn(self.env.render()))
        return resized(self.spec, self._images) | vectors


def resized(spec: EnvSpec, images: Mapping[str, NDArray[np.uint8]]) -> Observation:
    """Images [h, w, C] as a spec has them, [C, size, size]."""
    return {name: area_resized(image.transpose(2, 0, 1), *spec.images[name][1:]) for name, image in images.items()}


def first_image(images: Mapping[str, NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """What a video shows; raises BadOption where no image is observed."""
    if not images:
        raise BadOption("expected an environment that shows an image, got observe=state", key="render")
    return next(iter(images.values()))


def unpacked(call: str, returned: object, names: Sequence[str]) -> tuple[Any, ...]:
    """What an environment's `reset` or `step` returned; raises BadObservation unless that is a tuple of `names`."""
    if isinstance(returned, tuple) and len(returned) == len(names):
        return returned
    got = f"a tuple of {len(returned)}" if isinstance(returned, tuple) else type(returned).__name__
    raise BadObservation(f"{call}: expected a tuple of {', '.join(names)} as Gymnasium has it, got {got}")


def drawn(frame: Any) -> NDArray[np.uint8]:
    """What an environment drew, uint8 [h, w, 3]; raises BadObservation for anything else."""
    if not isinstance(frame, np.ndarray) or frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[-1] != 3:
        got = f"{frame.dtype} {frame.shape}" if isinstance(frame, np.ndarray) else type(frame).__name__
        raise BadObservation(f"render: expected uint8 (h, w, 3), got {got}")
    return frame
