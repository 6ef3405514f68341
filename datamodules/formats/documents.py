"""The JSON documents that lie beside recorded data, and the spec that our own writers put into them."""

import json
from pathlib import Path
from typing import Any

from datamodules.formats.guard import LIMITS, read_inside, refuse_above
from datamodules.formats.protocol import FormatError, HostileFile
from datamodules.storage.durable import write_atomic
from worldmodel.spec import EnvSpec

# parsed, a document can take thirty times its bytes
JSON_BYTES = 1 << 24
_FIELDS = {"task": str, "action_dim": int, "action_repeat": int, "episode_steps": int, "look": str, "backend": str}


def read_json(root: Path, path: Path) -> dict[str, Any]:
    """The JSON object in the file `path` inside `root`; raises HostileFile, FormatError, OSError."""
    data = read_inside(root, path, limit=JSON_BYTES)
    try:
        content = json.loads(data)
    except RecursionError as error:
        raise HostileFile(f"{path}: expected JSON, got one that is nested too deeply") from error
    except ValueError as error:
        raise FormatError(f"{path}: expected JSON, got {error}") from error
    if not isinstance(content, dict):
        raise FormatError(f"{path}: expected a JSON object, got {type(content).__name__}")
    return content


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Put a JSON object at `path`, old or new after a crash; raises OSError."""
    write_atomic(path, json.dumps(content, indent=2).encode())


def spec_from(fields: object, name: str) -> EnvSpec:
    """The spec that `EnvSpec.to_json` wrote, each field checked; raises FormatError, HostileFile."""
    if not isinstance(fields, dict):
        raise FormatError(f"{name} spec: expected an object, got {type(fields).__name__}")
    for key, kind in _FIELDS.items():
        if key in fields and (not isinstance(fields[key], kind) or isinstance(fields[key], bool)):
            raise FormatError(f"{name} spec.{key}: expected {kind.__name__}, got {fields[key]!r:.40}")
    pixels = fields.get("pixels")
    if not (isinstance(pixels, list) and len(pixels) == 3 and all(type(n) is int and n > 0 for n in pixels)):
        raise FormatError(f"{name} spec.pixels: expected [channels, height, width], got {pixels!r:.40}")
    refuse_above(LIMITS.image_pixels, pixels[0] * pixels[1] * pixels[2], f"{name} spec.pixels: values")
    try:
        return EnvSpec.from_json(fields)
    except TypeError as error:
        raise FormatError(f"{name} spec: {error}") from error
