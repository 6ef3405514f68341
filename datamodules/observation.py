"""Named observations as rows of memory: all images of a row are one run of bytes, all vectors one run of floats."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from worldmodel.spec import EnvSpec

# by name, images uint8 [..., C, h, w] and vectors float32 [..., d]
Observation = dict[str, NDArray[Any]]
# images (C, h, w) and sizes of vectors, by name
Shapes = tuple[Mapping[str, tuple[int, int, int]], Mapping[str, int]]


def image_bytes(spec: EnvSpec) -> int:
    """Bytes of all images of one row."""
    return sum(math.prod(shape) for shape in spec.images.values())


def vector_size(spec: EnvSpec) -> int:
    """Numbers in all vectors of one row."""
    return sum(spec.vectors.values())


def empty(spec: EnvSpec, *rows: int) -> Observation:
    """Zeros of every image and vector, each [*rows, ...]."""
    images = {name: np.zeros((*rows, *shape), np.uint8) for name, shape in spec.images.items()}
    return images | {name: np.zeros((*rows, size), np.float32) for name, size in spec.vectors.items()}


def split_images(spec: EnvSpec, flat: NDArray[np.uint8]) -> dict[str, NDArray[np.uint8]]:
    """Every image [..., C, h, w] of rows [..., image_bytes], as views."""
    images, begin = {}, 0
    for name, shape in spec.images.items():
        end = begin + math.prod(shape)
        images[name] = flat[..., begin:end].reshape(*flat.shape[:-1], *shape)
        begin = end
    return images


def split_vectors(spec: EnvSpec, flat: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
    """Every vector [..., d] of rows [..., vector_size], as views."""
    vectors, begin = {}, 0
    for name, size in spec.vectors.items():
        vectors[name] = flat[..., begin : begin + size]
        begin += size
    return vectors


def join_images(spec: EnvSpec, observation: Observation, rows: tuple[int, ...] = ()) -> NDArray[np.uint8]:
    """The images of an observation as rows [*rows, image_bytes]; a view where it is one contiguous image."""
    parts = [observation[name].reshape(*rows, -1) for name in spec.images]
    if len(parts) == 1:
        return parts[0]
    return np.concatenate([np.empty((*rows, 0), np.uint8), *parts], axis=-1)


def shapes_of(observation: Observation) -> Shapes:
    """Images and vectors of an EnvSpec that has what rows [T, ...] show."""
    images: dict[str, Any] = {name: rows.shape[1:] for name, rows in observation.items() if rows.dtype == np.uint8}
    return images, {name: rows.shape[1] for name, rows in observation.items() if name not in images}


def misfit(spec: EnvSpec, observation: Observation) -> str | None:
    """What is wrong with one row's names, shapes, types and vectors, "key: expected ..., got ..."; None for nothing."""
    if observation.keys() != spec.images.keys() | spec.vectors.keys():
        return f"observation: expected {[*spec.images, *spec.vectors]}, got {list(observation)}"
    for name, shape in spec.images.items():
        image = observation[name]
        if image.shape != shape or image.dtype != np.uint8:
            return f"{name}: expected uint8 {shape}, got {image.dtype} {image.shape}"
    for name, size in spec.vectors.items():
        vector = observation[name]
        if vector.shape != (size,) or vector.dtype != np.float32:
            return f"{name}: expected float32 {(size,)}, got {vector.dtype} {vector.shape}"
        if not np.isfinite(vector).all():
            return f"{name}: expected finite values, got {vector.tolist()}"
    return None
