"""Which observations a data set holds, under which names, and the spec that a writer leaves beside them."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datamodules.formats.guard import read_json, spec_from, write_json
from datamodules.formats.protocol import FormatError
from worldmodel.spec import EnvSpec

# beside the episodes: what their format has no place for
META = Path("worldmodel.json")


def stored_spec(root: Path, path: Path = META) -> EnvSpec | None:
    """The spec that a writer left in `root`, None where none did; raises FormatError."""
    return spec_from(read_json(root, path).get("spec"), str(path)) if (root / path).exists() else None


def store_spec(root: Path, spec: EnvSpec) -> None:
    """Leave a writer's spec in the folder `root`, new or not; raises FormatError where another spec is there."""
    root.mkdir(parents=True, exist_ok=True)
    stored = stored_spec(root)
    if stored is None:
        write_json(root / META, {"spec": spec.to_json()})
    else:
        require_same_spec(stored, spec, str(root))


def require_same_spec(stored: EnvSpec, spec: EnvSpec, name: str) -> None:
    """Raise FormatError where the data set `name` holds episodes of another environment than is to be written."""
    for fact, expected, got in stored.differences(spec):
        raise FormatError(f"{name} {fact}: expected {expected} as of the episodes there, got {got}")


@dataclass(frozen=True, slots=True)
class Selection:
    """What is read of an episode: its keys, none for the only image, and what each is called.

    names: none where keys become channels side by side.
    """

    keys: tuple[str, ...] = ()
    names: tuple[str, ...] = ()

    @property
    def named(self) -> bool:
        """Whether images and vectors are read by name."""
        return bool(self.names)

    def fields(self, arrays: Mapping[str, NDArray[Any]]) -> dict[str, Any]:
        """The arrays of what is read, by their keys, as an Assembler takes them."""
        if not self.named:
            return {"pixels": [*arrays.values()]}
        return {"observation": {name: arrays[key] for name, key in zip(self.names, self.keys, strict=True)}}


def select(image_key: str, observe: str, stored: EnvSpec | None) -> Selection:
    """What the options `image_key` (a,b) and `observe` (a,b) say, else what a writer left."""
    keys = {} if image_key else keys_of(observe, stored)
    return Selection((*keys.values(),), (*keys,)) if keys else Selection(tuple(filter(None, image_key.split(","))))


def keys_of(observe: str, stored: EnvSpec | None) -> dict[str, str]:
    """The keys of what is read by name, by name: what was asked for, or what a writer left unless it is one image.

    observe: a,b for keys that are names, name:key for another name than the key.
    """
    if not observe:
        return {} if stored is None or is_plain(stored) else {name: name for name in (*stored.images, *stored.vectors)}
    parts = [part.partition(":") for part in observe.split(",")]
    keys = {name: key if mark else name for name, mark, key in parts}
    if len(keys) < len(parts) or not all(keys) or not all(keys.values()):
        raise FormatError(f"observe: expected different names as front,state or state:observations, got {observe!r}")
    return keys


def is_plain(spec: EnvSpec) -> bool:
    """Whether one image is all that is observed, which every format stores as it always was."""
    return list(spec.images) == ["pixels"] and not spec.vectors


def channels_last(values: NDArray[Any]) -> NDArray[Any]:
    """Images [T, h, w, C] as data sets have them; vectors stay as they are."""
    return np.ascontiguousarray(values.transpose(0, 2, 3, 1)) if values.ndim == 4 else values


def with_task(spec: EnvSpec, task: str) -> EnvSpec:
    """A writer's spec under the name that was asked for, if one was."""
    return replace(spec, task=task or spec.task)


def with_bounds(spec: EnvSpec, low: NDArray[np.float64] | None, high: NDArray[np.float64] | None) -> EnvSpec:
    """A spec with the bounds [1] or [A] of stored actions, where they are known and of that many actions."""
    if low is None or high is None or spec.discrete or not {len(low), len(high)} <= {1, spec.action_dim}:
        return spec
    bounds = [tuple(np.broadcast_to(bound, spec.action_dim).tolist()) for bound in (low, high)]
    return replace(spec, action_low=bounds[0], action_high=bounds[1])
