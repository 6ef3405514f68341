"""The manifest of a folder of files: size and SHA-256 of each, in one spelling, so that no byte changes unseen."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from worldmodel.errors import UserError

Facts = Mapping[str, Any]  # sha256 and size of a file


def encode(files: Mapping[str, bytes], **version: int) -> bytes:
    """The manifest of files by name, and the version of their format under its name."""
    sums = {name: {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)} for name, data in files.items()}
    return _canonical({**version, "files": sums})


def decode(path: Path, content: bytes, *, damaged: type[UserError], **version: int) -> dict[str, Facts]:
    """The facts of every file by name, from a manifest's content; raises `damaged` for any that was not written."""
    ((key, expected),) = version.items()
    try:
        manifest = json.loads(content)
        got, files = manifest[key], manifest["files"]
        sums: dict[str, Facts] = {
            name: {"sha256": str(files[name]["sha256"]), "size": int(files[name]["size"])} for name in files
        }
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise damaged(f"{path}: expected a manifest, got {error!r}") from error
    if got != expected:
        raise damaged(f"{path}: expected {key} {expected}, got {got!r}")
    if content != _canonical({key: expected, "files": sums}):
        raise damaged(f"{path}: expected the manifest as it was written, got an altered one")
    return sums


def read_checked(path: Path, facts: Facts, *, damaged: type[UserError]) -> bytes:
    """A file's content; raises `damaged` where it is not what the manifest says, before reading where its size is."""
    size = path.stat().st_size
    if size != facts["size"]:
        raise damaged(f"{path}: expected {facts['size']} bytes, got {size}")
    data = path.read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    if digest != facts["sha256"]:
        raise damaged(f"{path}: expected SHA-256 {facts['sha256']}, got {digest}")
    return data


def _canonical(manifest: Any) -> bytes:
    return json.dumps(manifest, sort_keys=True, indent=1).encode()
