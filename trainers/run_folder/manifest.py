"""A folder's files by name, with their sizes and SHA-256: what is checked before any of them is decoded."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from worldmodel.errors import UserError

Sums = dict[str, dict[str, Any]]  # size and SHA-256 by file


def manifest_of(files: Mapping[str, bytes], **version: int) -> bytes:
    """The manifest of files by their content; version: under what name and number, such as `format=1`."""
    sums = {name: {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)} for name, data in files.items()}
    return _canonical({**version, "files": sums})


def read_manifest(path: Path, content: bytes, *, damaged: type[UserError], **version: int) -> Sums:
    """What the manifest at `path` says; raises `damaged` for one that `manifest_of` has not written."""
    ((key, number),) = version.items()
    try:
        manifest = json.loads(content)
        found, files = manifest[key], manifest["files"]
        sums = {name: {"sha256": str(files[name]["sha256"]), "size": int(files[name]["size"])} for name in files}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise damaged(f"{path}: expected a manifest, got {error!r}") from error
    if found != number:
        raise damaged(f"{path}: expected {key} {number}, got {found!r}")
    # one spelling only, so that not a single byte of the manifest can change unseen
    if content != _canonical({**version, "files": sums}):
        raise damaged(f"{path}: expected the manifest as it was written, got an altered one")
    return sums


def read_checked(path: Path, facts: Mapping[str, Any], *, damaged: type[UserError]) -> bytes:
    """A file's content; raises `damaged` where it is not what its manifest says, and OSError."""
    size = path.stat().st_size
    # before reading, so that a huge file costs nothing
    if size != facts["size"]:
        raise damaged(f"{path}: expected {facts['size']} bytes, got {size}")
    data = path.read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    if digest != facts["sha256"]:
        raise damaged(f"{path}: expected SHA-256 {facts['sha256']}, got {digest}")
    return data


def _canonical(manifest: Mapping[str, Any]) -> bytes:
    return json.dumps(manifest, sort_keys=True, indent=1).encode()
