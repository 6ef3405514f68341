"""A bundle's files: written as a whole or not at all, and each checked against its SHA-256 before it is read."""

import hashlib
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from datamodules.storage.durable import sync, write_new
from trainers.run_folder.find import is_run
from trainers.run_folder.manifest import Sums, manifest_of, read_checked, read_manifest
from worldmodel.errors import UserError

SCHEMA = 1
MANIFEST, CONTROL, AGENT = "manifest.json", "control.json", "agent.json"
WEIGHTS, PARITY = "model.safetensors", "parity.json"
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
    folder = folder.resolve()  # onto a link nothing can be renamed
    manifest = manifest_of(files, schema=SCHEMA)
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
    """Raise BundleExists unless nothing, or an empty folder that is not the present one, lies there."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir()) or folder.resolve() == Path.cwd()):
        raise BundleExists(f"out: expected a folder that does not exist yet, got {folder}")


def read_files(folder: Path) -> tuple[dict[str, bytes], str]:
    """Every file's content, verified, and the manifest's SHA-256; nothing is decoded but the manifest.

    BundleDamaged names the first file that is missing, surplus or altered.
    """
    if not folder.is_dir():
        raise BundleDamaged(f"bundle: expected a folder that trainers.export wrote, got {folder}")
    if not (folder / MANIFEST).exists() and is_run(folder):
        raise BundleDamaged(
            f"bundle: expected a folder that trainers.export wrote, got the run {folder}: "
            f"python -m trainers.export checkpoint={folder} out=FOLDER makes one of it"
        )
    try:
        content, expected = _read_manifest(folder)
        present = {str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir()}
        if surplus := sorted(present - expected.keys() - {MANIFEST}):
            raise BundleDamaged(f"{folder}: expected only the files of its manifest, got {surplus[0]} too")
        files = {
            name: read_checked(_require_file(folder / name), facts, damaged=BundleDamaged)
            for name, facts in expected.items()
        }
    except OSError as error:
        raise BundleDamaged(f"{folder}: {error.filename or folder}: {error.strerror}") from error
    return files, hashlib.sha256(content).hexdigest()


def _require_file(path: Path) -> Path:
    if path.is_symlink():
        raise BundleDamaged(f"{path}: expected a file, got a link")
    return path


def _read_manifest(folder: Path) -> tuple[bytes, Sums]:
    path = _require_file(folder / MANIFEST)
    size = path.stat().st_size
    if size > MANIFEST_BYTES:
        raise BundleDamaged(f"{path}: expected at most {MANIFEST_BYTES} bytes, got {size}")
    content = path.read_bytes()
    sums = read_manifest(path, content, damaged=BundleDamaged, schema=SCHEMA)
    if missing := sorted(REQUIRED - sums.keys()):
        raise BundleDamaged(f"{folder / MANIFEST}: expected {missing[0]} among the files, got none")
    for name, facts in sums.items():
        parts = name.split("/")
        if len(parts) > 2 or not all(parts) or {".", ".."} & set(parts) or "\\" in name or "\0" in name:
            raise BundleDamaged(f"{folder / MANIFEST}: expected names within the bundle, got {name!r}")
        if not 0 <= facts["size"] <= FILE_BYTES:
            raise BundleDamaged(f"{folder / MANIFEST}: {name}: expected at most {FILE_BYTES} bytes")
    return content, sums
