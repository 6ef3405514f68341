"""dm_control from pixels, the suite or a task of one's own: persistent cameras, summed rewards, actions in [-1, 1]."""

import contextlib
import difflib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datamodules.envs import gl
from datamodules.envs.checks import checked_action, require_open
from datamodules.envs.dmc_tasks import may_terminate, own_loader, random_of, step_limit, stepped
from datamodules.envs.errors import BadOption, UnknownTask
from datamodules.envs.import_path import is_import_path
from datamodules.envs.protocol import Step
from datamodules.envs.simulation import require_intact
from datamodules.observation import Observation
from worldmodel.spec import EnvSpec

# side of the off-screen buffer, so the largest frame that `render` can give; it costs memory only
BUFFER = 512
# for tasks whose own time limit is infinite (lqr)
ENDLESS_STEPS = 1000
UNLIMITED = 1e6
# where the suite's first camera does not show what the reward speaks of; the first that fits, docs/environments.md
CAMERAS = {"dog_fetch": 3, "lqr": 1, "quadruped_fetch": 0, "quadruped": 2}


def make(
    *,
    task: str,
    size: int | Mapping[str, int] = 64,
    action_repeat: int = 2,
    episode_steps: int | None = None,
    observe: str = "pixels",
    camera: int | None = None,
    cameras: Mapping[str, int | str] | None = None,
    look: str = "auto",
    kwargs: Mapping[str, Any] | None = None,
    gpu: gl.GPU | None = None,
) -> "DmcEnv":
    """Open `domain_task` of the suite, or what `package.module:function` returns, with [3, size, size] images.

    observe: frames, or dm_control's own observation as a vector for each of its keys, or both; without frames no GL is
    loaded. cameras: their images by names of one's own; size: of all, or of each by its name.
    episode_steps: control steps until truncation, by default the environment's own limit. camera: its camera's index,
    by default `default_camera` (-1, the free one, where there is none). look: "suite" draws as published work does,
    "fast" leaves out shadows, reflections and multisampling, "auto" is "suite" on a GPU and "fast" in software.
    kwargs: for a function of one's own. gpu: what draws. Raises UnknownTask, BadOption, BadSpace or MissingGL.
    """
    for side in size.values() if isinstance(size, Mapping) else (size,):
        _require("size", side, type(side) is int and 16 <= side <= BUFFER, f"16..{BUFFER}")
    _require("observe", observe, observe in ("pixels", "state", "pixels+state"), "pixels, state or pixels+state")
    _require("cameras", cameras, not cameras or (camera is None and observe != "state"), "none beside camera, or state")
    _require("action_repeat", action_repeat, action_repeat >= 1, ">= 1")
    _require("look", look, look in ("auto", "suite", "fast"), "auto, suite or fast")
    _require("episode_steps", episode_steps, episode_steps is None or episode_steps >= 1, ">= 1")
    with gl.disabled() if observe == "state" else contextlib.nullcontext():
        suite = _import_suite(gpu=gpu)
    if is_import_path(task):
        load = own_loader(task, kwargs or {})
    else:
        _require("kwargs", kwargs, not kwargs, "none for a task of the suite")
        load = _suite_loader(suite, task)
    options: dict[str, Any] = {"task": task, "action_repeat": action_repeat, "episode_steps": episode_steps}
    options["observes_state"] = observe != "pixels"
    if observe == "state":
        return DmcEnv(load, views={}, look="none", **options)
    chosen: Mapping[str, int | str | None] = cameras or {"pixels": default_camera(task) if camera is None else camera}
    _require("size", size, isinstance(size, int) or set(size) == set(chosen), f"a size for each of {list(chosen)}")
    views = {name: (one, size[name] if isinstance(size, Mapping) else size) for name, one in chosen.items()}
    env = DmcEnv(load, views=views, look=look, **options)
    if look == "auto" and not gl.is_software(env.renderer):
        # shadow map and multisampling are fixed when the context is made, and the driver is only known afterwards
        env.close()
        env = DmcEnv(load, views=views, look="suite", **options)
    return env


def split_task(task: str, known: tuple[tuple[str, str], ...]) -> tuple[str, str]:
    """Split `domain_task` (domains may contain underscores) by the suite's own list; raises UnknownTask."""
    pairs = {f"{domain}_{name}": (domain, name) for domain, name in known}
    if task not in pairs:
        near = difflib.get_close_matches(task, pairs, n=3, cutoff=0.4) or sorted(pairs)
        raise UnknownTask(f"expected a control suite task such as {', '.join(near)}; got {task!r}")
    return pairs[task]


def default_camera(task: str) -> int | None:
    """The camera that shows what a suite task is about; None for the model's first."""
    return next((index for name, index in CAMERAS.items() if f"{task}_".startswith(f"{name}_")), None)


def control_range(
    minimum: NDArray[np.float64], maximum: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Middle [A] and half width [A] of the controls, so that an action in [-1, 1] gives middle + half * action."""
    # an unlimited actuator reports 1e10, or infinity: its control is the action itself
    limited = (np.abs(minimum) < UNLIMITED) & (np.abs(maximum) < UNLIMITED)
    low, high = np.where(limited, minimum, -1.0), np.where(limited, maximum, 1.0)
    return (low + high) / 2.0, (high - low) / 2.0


def _suite_loader(suite: ModuleType, task: str) -> Callable[[], Any]:
    domain, name = split_task(task, suite.ALL_TASKS)
    # lqr draws its springs when it is built: a fixed seed makes the task the same in every worker
    return lambda: suite.load(domain, name, task_kwargs={"random": 0})


def _require(key: str, got: object, valid: bool, expected: str) -> None:
    if not valid:
        raise BadOption(f"expected {expected}, got {got!r}", key=key)


def _import_suite(*, gpu: gl.GPU | None) -> ModuleType:
    gl.choose_backend(gpu=gpu)
    try:
        from dm_control import suite
    except ModuleNotFoundError:
        raise
    # a GL stack fails on import in many ways: no display, no driver, a NULL entry point, a bad MUJOCO_GL
    except (ImportError, AttributeError, RuntimeError, OSError) as error:
        raise gl.missing(error) from error
    return suite


class DmcEnv:
    """One task; `env` is dm_control's own environment, that `load` builds, `renderer` the GL driver that draws.

    views: the camera (None: the model's first) and the side of every image by its name; without any nothing is drawn.
    """

    def __init__(
        self,
        load: Callable[[], Any],
        *,
        task: str,
        action_repeat: int,
        episode_steps: int | None,
        views: Mapping[str, tuple[int | str | None, int]],
        observes_state: bool,
        look: str,
    ) -> None:
        self.env = load()
        self._random = random_of(self.env)
        first = min(0, self.env.physics.model.ncam - 1)
        self._views = {name: [first if one is None else self._index(one)] for name, (one, _) in views.items()}
        self._look = "fast" if look == "auto" else look
        self._cameras: dict[tuple[int, int], Any] = {}
        self.renderer = "none"
        if views:
            self._prepare_look()
            for name, (_, size) in views.items():
                self._camera(self._views[name][0], size)
            with self.env.physics.contexts.gl.make_current() as context:
                self.renderer = context.call(gl.renderer_name)
        self._vectors, self.notes = state_of(self.env.observation_spec()) if observes_state else ({}, ())
        bounds, limit = self.env.action_spec(), step_limit(self.env)
        self._middle, self._half = control_range(bounds.minimum, bounds.maximum)
        self._control_steps, self._open = 0, False
        self.spec = EnvSpec(
            task=task,
            images={name: (3, size, size) for name, (_, size) in views.items()},
            vectors=self._vectors,
            action_dim=bounds.shape[0],
            action_repeat=action_repeat,
            episode_steps=episode_steps or (math.ceil(limit) if math.isfinite(limit) else ENDLESS_STEPS),
            look=self._look,
            backend=gl.choose_backend(gpu=None) if views else "none",
            action_low=tuple((self._middle - self._half).tolist()),
            action_high=tuple((self._middle + self._half).tolist()),
            terminates=may_terminate(self.env),
        )

    def reset(self, seed: int) -> Step:
        """Open the episode of `seed`: same seed and actions, same pixels and rewards, bit for bit."""
        self._random.seed(seed % 2**32)
        row = self.env.reset()
        if self._views and self.env.physics.model.ptr is not self._model:
            # composer compiles a model anew for every episode: cameras of the old one would draw the past
            self._prepare_look()
        self._control_steps, self._open = 0, True
        return Step(self._observed(row.observation), 0.0, is_first=True, is_last=False, is_terminal=False, env_steps=0)

    def step(self, action: NDArray[np.floating]) -> Step:
        """Hold an action [A] in [-1, 1] for action_repeat control steps and sum rewards.

        Raises BadAction, Diverged and NotReset.
        """
        require_open(self._open)
        control = self._middle + self._half * checked_action(action, action_dim=self.spec.action_dim)
        reward, taken, last = 0.0, 0, False
        while taken < self.spec.action_repeat and not last:
            # a copy for every call: a task may change in place what it is given
            row = stepped(self.env, control.copy())
            reward += float(row.reward)
            taken += 1
            last = row.last() or self._control_steps + taken >= self.spec.episode_steps
        require_intact(self.env)
        self._control_steps += taken
        self._open = not last
        terminal = bool(row.last() and row.discount == 0)
        return Step(self._observed(row.observation), reward, False, last, terminal, env_steps=taken)

    def render(self, size: int) -> NDArray[np.uint8]:
        """Draw the present state as uint8 [size, size, 3] in the same look, for videos; raises BadOption."""
        _require("size", size, 1 <= size <= BUFFER, f"1..{BUFFER}")
        _require("observe", "state", bool(self._views), "pixels for what is to be drawn")
        return np.ascontiguousarray(self._camera(next(iter(self._views.values()))[0], size).render())

    def use_cameras(self, ids: Sequence[int | str]) -> None:
        """See through these cameras, by index or name, from the next reset on: frames [3 * n, h, w]; BadOption."""
        _require("camera", list(self._views), list(self._views) == ["pixels"], "no task.env.cameras beside it")
        self._views = {"pixels": [self._index(camera) for camera in ids]}
        self.spec = replace(self.spec, images={"pixels": (3 * len(ids), *self.spec.pixels[1:])})

    def background_mask(self, image: str = "pixels") -> NDArray[np.bool_]:
        """Where the present image shows sky or a plane (floor, walls), [V, h, w] for V cameras."""
        side = self.spec.images[image][1]
        return np.stack([_is_background(self._camera(view, side)) for view in self._views[image]])

    def state_fingerprint(self) -> bytes:
        """The positions, in steps of 0.05 rad or m: two that differ in several of them look different."""
        return np.rint(self.env.physics.data.qpos * 20).astype(np.int64).tobytes()

    def draws_other_states(self) -> set[str]:
        """The images that show the model's own positions, or others beside them, otherwise than the present ones."""
        import mujoco

        model, data = self.env.physics.model.ptr, self.env.physics.data.ptr
        present, held = self._images(), mujoco.MjData(model)
        mujoco.mj_copyData(held, model, data)
        changed = set[str]()
        try:
            for offset in (0.0, 0.5):
                data.qpos[:] = model.qpos0 + offset
                mujoco.mj_kinematics(model, data)
                mujoco.mj_camlight(model, data)
                changed |= {name for name, image in self._images().items() if not np.array_equal(image, present[name])}
            return changed
        finally:
            mujoco.mj_copyData(data, model, held)

    def close(self) -> None:
        self._cameras.clear()
        self.env.close()
        self.env.physics.free()

    def _observed(self, observation: Mapping[str, Any]) -> Observation:
        seen = self._images()
        for name in self._vectors:
            seen[name] = np.ravel(observation[name]).astype(np.float32)
        return seen

    def _images(self) -> Observation:
        seen: Observation = {}
        for name, views in self._views.items():
            side = self.spec.images[name][1]
            seen[name] = np.concatenate([self._camera(view, side).render().transpose(2, 0, 1) for view in views])
        return seen

    def _index(self, camera: int | str) -> int:
        """The index of a camera that is given by its index or its name; raises BadOption."""
        model = self.env.physics.model
        names = {model.id2name(index, "camera"): index for index in range(model.ncam)}
        known = {-1: -1, **names, **{index: index for index in names.values()}}
        expected = ", ".join([*(f"{index} ({name})" for name, index in names.items()), "-1 (free)"])
        valid = isinstance(camera, int | str) and not isinstance(camera, bool) and camera in known
        _require("camera", camera, valid, expected)
        return known[camera]

    def _camera(self, view: int, size: int) -> Any:
        # physics.render builds and frees a camera and its scene on every call: four times the price of drawing
        if (view, size) not in self._cameras:
            self._cameras[view, size] = self._new_camera(view, size)
        return self._cameras[view, size]

    def _new_camera(self, view: int, size: int) -> Any:
        from dm_control import mujoco as dm_mujoco
        from mujoco import mjtRndFlag

        count = self.env.physics.model.ncam
        _require("camera", view, -1 <= view < count, f"-1..{count - 1}")
        try:
            camera = dm_mujoco.Camera(self.env.physics, height=size, width=size, camera_id=view)
        except (RuntimeError, AttributeError) as error:
            raise gl.missing(error) from error
        if self._look == "fast":
            camera.scene.flags[mjtRndFlag.mjRND_SHADOW] = 0
            camera.scene.flags[mjtRndFlag.mjRND_REFLECTION] = 0
        return camera

    def _prepare_look(self) -> None:
        model = self.env.physics.model
        self._model = model.ptr
        self._cameras.clear()
        model.vis.global_.offwidth = model.vis.global_.offheight = BUFFER
        if self._look == "fast":
            model.vis.quality.shadowsize = model.vis.quality.offsamples = 0
            model.light_castshadow[:] = 0


def state_of(parts: Mapping[str, Any]) -> tuple[dict[str, int], tuple[str, ...]]:
    """The sizes of an observation's vectors by name, and what is said of the parts that are none."""
    numbers = {name: part for name, part in parts.items() if part.dtype.kind in "biuf" and part.dtype != np.uint8}
    others = [name for name in parts if name not in numbers]
    notes = (f"not read of the observation: {', '.join(others)}",) if others else ()
    return {name: math.prod(part.shape) for name, part in numbers.items() if math.prod(part.shape)}, notes


def _is_background(camera: Any) -> NDArray[np.bool_]:
    from mujoco import mjtGeom

    # every object in a colour that is its number, 0 for nothing; dm_control's own segmentation takes a fifth longer
    numbers = camera.render(render_flag_overrides={"segment": True, "idcolor": True})
    is_background = np.zeros(camera.scene.ngeom + 1, np.bool_)
    plane = int(mjtGeom.mjGEOM_PLANE)
    is_background[[0, *(geom.segid + 1 for geom in camera.scene.geoms if geom.type == plane)]] = True
    return is_background[numbers.astype(np.int64) @ (1, 1 << 8, 1 << 16)]
