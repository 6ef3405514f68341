"""What `meta/info.json` and `meta/stats.json` of a LeRobot data set say, checked: nothing there is trusted."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datamodules.formats.assemble import Convention, RowOptions
from datamodules.formats.guard import read_json, require_image
from datamodules.formats.protocol import FormatError, HostileFile

INFO, STATS, OWN = Path("meta/info.json"), Path("meta/stats.json"), Path("meta/worldmodel.json")
DATA_PATH = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
VIDEO_PATH = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
ACTION_DIM = 1024


@dataclass(frozen=True, slots=True)
class Info:
    """camera: the key of its feature; in_film: it lies in films, else as pictures in the table; size: height, width.

    cameras: of all of them. vectors: how many numbers the others of what is observed have, by the key.
    """

    fps: float
    camera: str
    in_film: bool
    size: tuple[int, int]
    action_dim: int
    columns: frozenset[str]
    cameras: tuple[str, ...]
    vectors: Mapping[str, int]
    data_path: str
    video_path: str


def read_info(root: Path, camera: str, *, several: bool = False) -> Info:
    """The facts of the data set at `root` for one of its cameras ("": the only one); raises FormatError, OSError.

    several: or the first of several.
    """
    content = read_json(root, INFO)
    version = content.get("codebase_version")
    if not (isinstance(version, str) and version.startswith("v3.")):
        raise FormatError(
            f"{INFO} codebase_version: expected v3.x, got {version!r:.40}; older ones have to be converted"
        )
    fps = content.get("fps")
    if isinstance(fps, bool) or not isinstance(fps, int | float) or not 0 < fps <= 1000:
        raise FormatError(f"{INFO} fps: expected a number in (0, 1000], got {fps!r:.40}")
    features = content.get("features")
    if not isinstance(features, dict) or not all(isinstance(feature, dict) for feature in features.values()):
        raise FormatError(f"{INFO} features: expected an object of objects, got {type(features).__name__}")
    key = _camera(features, camera or (next(iter(_cameras(features)), "") if several else ""))
    return Info(
        fps=float(fps),
        camera=key,
        in_film=features[key]["dtype"] == "video",
        size=_size(key, features[key]),
        action_dim=_action_dim(features),
        columns=frozenset(features),
        cameras=tuple(_cameras(features)),
        vectors={key: _length(key, feature) for key, feature in features.items() if _is_vector(key, feature)},
        data_path=str(content.get("data_path") or DATA_PATH),
        video_path=str(content.get("video_path") or VIDEO_PATH),
    )


def _camera(features: dict[str, dict[str, Any]], camera: str) -> str:
    cameras = _cameras(features)
    if camera in cameras:
        return camera
    if camera or len(cameras) != 1:
        raise FormatError(f"camera: expected one of {', '.join(cameras) or 'none at all'}, got {camera!r}: ?camera=...")
    return cameras[0]


def _cameras(features: dict[str, dict[str, Any]]) -> list[str]:
    return [key for key, feature in features.items() if feature.get("dtype") in ("video", "image")]


def _is_vector(key: str, feature: dict[str, Any]) -> bool:
    return key.startswith("observation.") and feature.get("dtype") in ("float32", "float64", "int64")


def _length(key: str, feature: dict[str, Any]) -> int:
    shape = feature.get("shape")
    if not (isinstance(shape, list) and len(shape) == 1 and type(shape[0]) is int and 0 < shape[0] <= ACTION_DIM):
        raise FormatError(f"{INFO} {key} shape: expected one length of at most {ACTION_DIM}, got {shape!r:.60}")
    return shape[0]


def camera_key(name: str, info: Info) -> str | None:
    """The camera of that name, with or without what such keys begin with; None where there is none."""
    return next((key for key in (name, f"observation.images.{name}") if key in info.cameras), None)


def vector_key(name: str, info: Info) -> str | None:
    """The numbers of that name, with or without what such keys begin with; None where there are none."""
    return next((key for key in (name, f"observation.{name}") if key in info.vectors), None)


def _size(key: str, feature: dict[str, Any]) -> tuple[int, int]:
    """Height and width; shapes are [h, w, c] or [c, h, w], as their names say."""
    shape, names = feature.get("shape"), feature.get("names")
    if not (isinstance(shape, list) and len(shape) == 3 and all(type(n) is int and n > 0 for n in shape)):
        raise FormatError(f"{INFO} {key} shape: expected 3 lengths, got {shape!r:.60}")
    named = isinstance(names, list) and bool(names) and str(names[0]).startswith("c")
    first = named or (not isinstance(names, list) and shape[0] in (1, 3) and shape[2] not in (1, 3))
    channels, height, width = shape if first else (shape[2], shape[0], shape[1])
    if channels not in (1, 3):
        raise FormatError(f"{INFO} {key} shape: expected 1 or 3 channels, got {shape}")
    require_image(f"{INFO} {key}", width, height)
    return height, width


def _action_dim(features: dict[str, dict[str, Any]]) -> int:
    shape = features.get("action", {}).get("shape")
    if not (isinstance(shape, list) and len(shape) == 1 and type(shape[0]) is int and 0 < shape[0] <= ACTION_DIM):
        raise FormatError(f"{INFO} action shape: expected one length of at most {ACTION_DIM}, got {shape!r:.60}")
    return shape[0]


def place(template: str, *, chunk: int, file: int, key: str = "") -> Path:
    """The path that a template of info.json names; raises HostileFile for any other field or format than LeRobot's."""
    values = {"chunk_index": chunk, "file_index": file}

    def fill(match: re.Match[str]) -> str:
        field, width = match.groups()
        return key if field == "video_key" else f"{values[field]:0{width or 1}d}"

    # `str.format` would let the file name attributes, and widths of a thousand million
    path = re.sub(r"\{(video_key|chunk_index|file_index)(?::0(\d)d)?\}", fill, template)
    if "{" in path or "}" in path:
        raise HostileFile(f"{INFO}: expected a path of chunk_index, file_index and video_key, got {template!r:.80}")
    return Path(path)


def convention_of(root: Path, info: Info, options: RowOptions) -> Convention:
    """How actions are stored: as the options say, else the least and the greatest of stats.json.

    Actions that lie in [-1, 1] already are left as they are. Raises FormatError where neither says it.
    """
    given = options.convention()
    if given.low is not None or given.discrete or not (root / STATS).exists():
        return given
    stats = read_json(root, STATS).get("action")
    least, most = (_bound(stats, key, info.action_dim) for key in ("min", "max"))
    if not (least <= most).all():
        raise FormatError(f"{STATS} action: expected min <= max, got {least}, {most}")
    if (np.abs(least) <= 1).all() and (np.abs(most) <= 1).all():
        return given
    # a joint that never moved has no range: it becomes 0
    flat = least == most
    return replace(given, low=np.where(flat, least - 1, least), high=np.where(flat, most + 1, most))


def _bound(stats: object, key: str, dims: int) -> NDArray[np.float64]:
    values = stats.get(key) if isinstance(stats, dict) else None
    try:
        bound = np.array(values, dtype=np.float64)
    except (ValueError, TypeError) as error:
        raise FormatError(f"{STATS} action {key}: expected {dims} numbers, got {values!r:.60}") from error
    if bound.shape != (dims,) or not np.isfinite(bound).all():
        raise FormatError(f"{STATS} action {key}: expected {dims} finite numbers, got {values!r:.60}")
    return bound
