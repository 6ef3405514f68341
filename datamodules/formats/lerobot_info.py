"""What `meta/info.json` and `meta/stats.json` of a LeRobot data set say, checked: nothing there is trusted."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datamodules.formats.convention import Convention, RowOptions
from datamodules.formats.guard import read_json, require_image
from datamodules.formats.protocol import FormatError, HostileFile, reading

INFO, STATS, OWN = Path("meta/info.json"), Path("meta/stats.json"), Path("meta/worldmodel.json")
DATA_PATH = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
VIDEO_PATH = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
VECTOR_SIZE = 1024


@dataclass(frozen=True, slots=True)
class Camera:
    """name: of what is observed; key: of its feature; in_film: it lies in films, else as pictures in the table.

    shape: channels, height, width of the frames.
    """

    name: str
    key: str
    in_film: bool
    shape: tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Info:
    """The facts of a data set, with its features by key."""

    fps: float
    action_dim: int
    features: Mapping[str, Mapping[str, Any]]
    data_path: str
    video_path: str

    def cameras(self) -> list[str]:
        """The keys of features that are pictures."""
        return [key for key, feature in self.features.items() if feature.get("dtype") in ("video", "image")]

    def vectors(self) -> list[str]:
        """The keys of features that are other numbers of what is observed."""
        kinds = ("float32", "float64", "int64")
        return [k for k, f in self.features.items() if k.startswith("observation.") and f.get("dtype") in kinds]


def read_info(root: Path) -> Info:
    """The facts of the data set at `root`; raises FormatError, OSError."""
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
    return Info(
        fps=float(fps),
        action_dim=length_of("action", features.get("action", {})),
        features=features,
        data_path=str(content.get("data_path") or DATA_PATH),
        video_path=str(content.get("video_path") or VIDEO_PATH),
    )


def cameras_of(info: Info, names: str) -> list[Camera]:
    """The cameras with the keys a,b, or the only one where there are no names; raises FormatError."""
    known = info.cameras()
    keys = known if not names and len(known) == 1 else names.split(",")
    for key in keys:
        if key not in known:
            raise FormatError(f"camera: expected one of {', '.join(known) or 'none at all'}, got {key!r}: ?camera=...")
    return [_camera(info, "pixels", key) for key in keys]


def named_parts(info: Info, keys: Mapping[str, str]) -> tuple[list[Camera], dict[str, str]]:
    """Cameras, and the keys of vectors by name; raises FormatError.

    keys: by name, with or without what they begin with.
    """
    known = {key.removeprefix("observation.images."): key for key in info.cameras()}
    cameras = [_camera(info, n, known.get(k, k)) for n, k in keys.items() if k in {*known, *known.values()}]
    others = {key.removeprefix("observation."): key for key in info.vectors()}
    rest = {n: k for n, k in keys.items() if n not in {camera.name for camera in cameras}}
    vectors = {n: others.get(k, k) for n, k in rest.items() if k in {*others, *others.values()}}
    if not cameras or len(cameras) + len(vectors) < len(keys):
        expected = ", ".join([*known.values(), *others.values()])
        raise FormatError(f"observe: expected names of {expected}, one camera at least, got {','.join(keys.values())}")
    return cameras, vectors


def _camera(info: Info, name: str, key: str) -> Camera:
    return Camera(name, key, info.features[key]["dtype"] == "video", (3, *_size(key, info.features[key])))


def _size(key: str, feature: Mapping[str, Any]) -> tuple[int, int]:
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


def length_of(key: str, feature: Mapping[str, Any]) -> int:
    """How many numbers a row of a feature has; raises FormatError."""
    shape = feature.get("shape")
    if not (isinstance(shape, list) and len(shape) == 1 and type(shape[0]) is int and 0 < shape[0] <= VECTOR_SIZE):
        raise FormatError(f"{INFO} {key} shape: expected one length of at most {VECTOR_SIZE}, got {shape!r:.60}")
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
    with reading(f"{STATS} action {key}: expected {dims} numbers, got {values!r:.60}", (ValueError, TypeError)):
        bound = np.array(values, dtype=np.float64)
    if bound.shape != (dims,) or not np.isfinite(bound).all():
        raise FormatError(f"{STATS} action {key}: expected {dims} finite numbers, got {values!r:.60}")
    return bound
