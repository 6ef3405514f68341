"""A bundle's files: written as a whole or not at all, and each checked against its SHA-256 before it is read."""

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from datamodules.storage.durable import sync, write_new
from worldmodel.errors import UserError

SCHEMA = 1
MANIFEST, CONTROL, AGENT, WEIGHTS, PARITY = (
    "manifest.json",
    "control.json",
    "agent.json",
    "model.safetensors",
    "parity.json",
)
PROGRAMS = "programs"
REQUIRED = {CONTROL, AGENT, WEIGHTS}
MANIFEST_BYTES, FILE_BYTES = 1_000_000, 16_000_000_000


class BundleDamaged(UserError):
    """A bundle that is incomplete, altered or of another schema; names what was expected and found."""


class BundleExists(UserError):
    """Something lies already where a bundle should be written."""


def write_files(folder: Path, files: Mapping[str, bytes]) -> str:
    """Publish a bundle by one rename, durable on return.

    Args:
        folder: must not exist, or be empty.
        files: content by relative name, at most one folder deep.

    Returns:
        The SHA-256 of the manifest, which stands for the whole bundle.

    Raises:
        BundleExists: for a folder that holds something.
        OSError: where the disk fails.
    """
    require_free(folder)
    manifest = _manifest(files)
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    try:
        temporary.mkdir()
        for name, data in {**files, MANIFEST: manifest}.items():
            (temporary / name).parent.mkdir(exist_ok=True)
            write_new(temporary / name, data)
        for path in {temporary, *(path.parent for path in temporary.rglob("*"))}:
            sync(path)
        temporary.rename(folder)
        sync(folder.parent)
    except OSError:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    return hashlib.sha256(manifest).hexdigest()


def require_free(folder: Path) -> None:
    """Raise BundleExists unless nothing, or an empty folder, lies there."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise BundleExists(f"out: expected a folder that does not exist yet, got {folder}")


def read_files(folder: Path) -> tuple[dict[str, bytes], str]:
    """Every file's content, verified, and the manifest's SHA-256; nothing is decoded but the manifest.

    Raises:
        BundleDamaged: names the first file that is missing, surplus or altered.
    """
    if not folder.is_dir():
        raise BundleDamaged(f"bundle: expected a folder that trainers.export wrote, got {folder}")
    try:
        content = _read(folder / MANIFEST, limit=MANIFEST_BYTES)
        expected = _parse(folder, content)
        present = {str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir()}
        if surplus := sorted(present - expected.keys() - {MANIFEST}):
            raise BundleDamaged(f"{folder}: expected only the files of its manifest, got {surplus[0]} too")
        files = {name: _checked(folder / name, facts) for name, facts in expected.items()}
    except OSError as error:
        raise BundleDamaged(f"{folder}: {error.filename or folder}: {error.strerror}") from error
    return files, hashlib.sha256(content).hexdigest()


def _read(path: Path, *, limit: int) -> bytes:
    if path.is_symlink():
        raise BundleDamaged(f"{path}: expected a file, got a link")
    size = path.stat().st_size
    if size > limit:
        raise BundleDamaged(f"{path}: expected at most {limit} bytes, got {size}")
    return path.read_bytes()


def _checked(path: Path, facts: Mapping[str, Any]) -> bytes:
    size = path.stat().st_size
    # before reading, so that a huge file costs nothing
    if size != facts["size"]:
        raise BundleDamaged(f"{path}: expected {facts['size']} bytes, got {size}")
    data = _read(path, limit=facts["size"])
    digest = hashlib.sha256(data).hexdigest()
    if digest != facts["sha256"]:
        raise BundleDamaged(f"{path}: expected SHA-256 {facts['sha256']}, got {digest}")
    return data


def _manifest(files: Mapping[str, bytes]) -> bytes:
    sums = {name: {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)} for name, data in files.items()}
    return _canonical({"schema": SCHEMA, "files": sums})


def _canonical(manifest: Any) -> bytes:
    return json.dumps(manifest, sort_keys=True, indent=1).encode()


def _parse(folder: Path, content: bytes) -> dict[str, dict[str, Any]]:
    try:
        manifest = json.loads(content)
        schema, files = manifest["schema"], manifest["files"]
        sums: dict[str, Any] = {
            name: {"sha256": str(files[name]["sha256"]), "size": int(files[name]["size"])} for name in files
        }
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise BundleDamaged(f"{folder / MANIFEST}: expected a manifest, got {error!r}") from error
    if schema != SCHEMA:
        raise BundleDamaged(f"{folder / MANIFEST}: expected schema {SCHEMA}, got {schema!r}")
    # one spelling only, so that not a single byte of the manifest can change unseen
    if content != _canonical({"schema": SCHEMA, "files": sums}):
        raise BundleDamaged(f"{folder / MANIFEST}: expected the manifest as it was written, got an altered one")
    if missing := sorted(REQUIRED - sums.keys()):
        raise BundleDamaged(f"{folder / MANIFEST}: expected {missing[0]} among the files, got none")
    for name, facts in sums.items():
        parts = name.split("/")
        if len(parts) > 2 or not all(parts) or {".", ".."} & set(parts) or "\\" in name or "\0" in name:
            raise BundleDamaged(f"{folder / MANIFEST}: expected names within the bundle, got {name!r}")
        if not 0 <= facts["size"] <= FILE_BYTES:
            raise BundleDamaged(f"{folder / MANIFEST}: {name}: expected at most {FILE_BYTES} bytes")
    return sums
