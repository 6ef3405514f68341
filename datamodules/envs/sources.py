"""Find an environment and its visual options by module name.

Any file in this folder with a `make(**kwargs)` is a source, any file in visuals/ with a `make(env, **options)` is an
option.
"""

import difflib
import importlib
import inspect
import json
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datamodules.envs.errors import BadOption, EnvError, UnknownSource
from datamodules.envs.protocol import Env, Lanes, Notes, Step
from datamodules.parts import extend
from worldmodel.spec import EnvSpec


def source_names() -> list[str]:
    """Module names in this folder and in those of parts, each a possible `source` (importing none of them)."""
    return _modules("datamodules.envs")


def visual_names() -> list[str]:
    """Module names in visuals/, each a visual option."""
    return _modules("datamodules.envs.visuals")


def load_source(source: str) -> ModuleType:
    """Import the module named `source` from this folder; raises UnknownSource for any other text."""
    # an allow-list, so that no name from a config or a file can import anything else
    if source not in source_names():
        raise UnknownSource(f"source: expected a module of datamodules/envs {source_names()}, got {source!r}")
    return importlib.import_module(f"datamodules.envs.{source}")


def has_lanes(source: str) -> bool:
    """Whether a source steps several environments together: it has `make_lanes` instead of `make`."""
    return hasattr(load_source(source), "make_lanes")


def takes(source: str, option: str) -> bool:
    """Whether a source's constructor has a keyword argument of that name."""
    return option in inspect.signature(_constructor(source, "make_lanes" if has_lanes(source) else "make")).parameters


def open_env(*, source: str, kwargs: Mapping[str, Any], visuals: Mapping[str, Any] | None = None) -> Env:
    """Build `source`'s environment from keyword arguments, seen through `visuals`; raises UnknownSource or BadOption.

    visuals: options by name, {} for an option's defaults, applied in their order; `spec.visuals` says which they were.
    """
    env = _make(source, "make", kwargs)
    try:
        return see_through(env, visuals or {})
    except EnvError:
        env.close()
        raise


def open_lanes(
    *, source: str, kwargs: Mapping[str, Any], visuals: Mapping[str, Any] | None = None, lanes: int
) -> Lanes:
    """Build `source`'s `lanes` environments, each seen through `visuals`; raises as `open_env`."""
    env = _make(source, "make_lanes", {**kwargs, "lanes": lanes})
    try:
        return SeenLanes(env, lanes, partial(see_through, visuals=visuals)) if visuals else env
    except EnvError:
        env.close()
        raise


def see_through(env: Env, visuals: Mapping[str, Any]) -> Env:
    """An environment behind visual options; raises BadOption."""
    for name, options in visuals.items():
        env = _see_through(env, name, options)
    return env


def _constructor(source: str, name: str) -> Callable[..., Any]:
    make = getattr(load_source(source), name, None)
    if make is None:
        raise UnknownSource(f"source: datamodules/envs/{source}.py has no {name}(**kwargs)")
    return make


def _make(source: str, name: str, kwargs: Mapping[str, Any]) -> Any:
    make = _constructor(source, name)
    try:
        inspect.signature(make).bind(**kwargs)
    except TypeError as error:
        raise BadOption(f"{source}.{name}{inspect.signature(make)}: {error}") from error
    return make(**kwargs)


def _see_through(env: Env, name: str, options: Any) -> Env:
    names = visual_names()
    if name not in names:
        near = difflib.get_close_matches(name, names, n=3) or names
        raise BadOption(f"no option {name!r}, did you mean {', '.join(near)}?", key="visuals")
    make = importlib.import_module(f"datamodules.envs.visuals.{name}").make
    signature = inspect.signature(make)
    try:
        bound = signature.bind(env, **options)
    except TypeError as error:
        raise BadOption(f"{error}; it takes {signature}, got {options!r}", key=f"visuals.{name}") from error
    seen = make(env, **options)
    bound.apply_defaults()
    _, *arguments = bound.arguments.items()
    # through JSON, so that the record equals the one that comes back from a file
    record = json.loads(json.dumps(dict(arguments)))
    seen.spec = replace(seen.spec, visuals={**seen.spec.visuals, name: record})
    return seen


def _modules(package: str) -> list[str]:
    return sorted(module.name for module in pkgutil.iter_modules(extend(package)))


class ArrivedRow:
    """What stands for an environment behind visual options: a call hands on the row that has arrived already."""

    row: Step

    def __init__(self, spec: EnvSpec) -> None:
        self.spec = spec

    def reset(self, seed: int) -> Step:
        return self.row

    def step(self, action: NDArray[np.floating]) -> Step:
        return self.row

    def close(self) -> None:
        """There is nothing to close."""


class SeenLanes:
    """`lanes`, each behind `see(env)`; raises BadOption for an option that steps on its own account."""

    def __init__(self, lanes: Lanes, count: int, see: Callable[[Env], Env]) -> None:
        self._lanes = lanes
        self._rows = [ArrivedRow(lanes.spec) for _ in range(count)]
        self._envs = [see(row) for row in self._rows]
        self.spec = self._envs[0].spec
        self.notes: tuple[str, ...] = lanes.notes if isinstance(lanes, Notes) else ()
        if self.spec.action_repeat != lanes.spec.action_repeat:
            raise BadOption("expected none with lanes, task.env.action_repeat repeats", key="visuals.action_repeat")

    def reset(self, seeds: dict[int, int]) -> dict[int, Step]:
        arrived = self._lanes.reset(seeds)
        return {lane: self._seen(lane, row).reset(seeds[lane]) for lane, row in arrived.items()}

    def step(self, actions: Mapping[int, NDArray[np.floating]]) -> dict[int, Step]:
        arrived = self._lanes.step(actions)
        return {lane: self._seen(lane, row).step(actions[lane]) for lane, row in arrived.items()}

    def render(self, lane: int, size: int) -> NDArray[np.uint8]:
        """Draw `lane` as uint8 [size, size, 3], without the options."""
        return self._lanes.render(lane, size)

    def close(self) -> None:
        self._lanes.close()

    def _seen(self, lane: int, row: Step) -> Env:
        self._rows[lane].row = row
        return self._envs[lane]
