"""Checkpoints that are whole or absent: a folder of checked files, published by one rename.

`model.safetensors` holds the weights under their own names, `state.safetensors` every other tensor, `state.json` the
rest, and `manifest.json` the size and SHA-256 of each. Nothing is unpickled.
"""

import ctypes
import json
import os
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from datamodules.storage.durable import sync, write_new
from trainers.run_folder.conversion import convert_checkpoint
from trainers.run_folder.manifest import manifest_of, read_checked, read_manifest
from trainers.run_folder.serialization import Packer, plain, unpack
from worldmodel.errors import UserError

FORMAT = 1
MODEL, STATE, REST, MANIFEST = "model.safetensors", "state.safetensors", "state.json", "manifest.json"
_STEP = re.compile(r"step_(\d{10,})(\.ckpt)?")
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2


class CheckpointDamaged(UserError):
    """A checkpoint that is incomplete, altered or of another format; names what was expected and found."""


def _encode(checkpoint: dict[str, Any]) -> dict[str, bytes]:
    """The content of every file."""
    weights = checkpoint.get("state_dict", {})
    model = {k: plain(v, path=f"state_dict[{k!r}]") for k, v in weights.items() if isinstance(v, Tensor)}
    packer = Packer()
    # safetensors sorts, a state dict has an order: the weights leave their places behind
    places = {"state_dict": {k: None if k in model else v for k, v in weights.items()}}
    tree = packer.pack({**checkpoint, **(places if "state_dict" in checkpoint else {})}, path="checkpoint")
    files = {MODEL: safetensors.torch.save(model), STATE: safetensors.torch.save(packer.tensors)}
    files[REST] = json.dumps(tree, allow_nan=False).encode()
    return {**files, MANIFEST: manifest_of(files, format=FORMAT)}


def _decode(files: dict[str, bytes]) -> dict[str, Any]:
    model, tensors = safetensors.torch.load(files[MODEL]), safetensors.torch.load(files[STATE])
    checkpoint = unpack(json.loads(files[REST]), tensors)
    # an update in place keeps the order
    checkpoint.get("state_dict", {}).update(model)
    return checkpoint


def _read(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Name and content of every file, each checked against the manifest; raises CheckpointDamaged."""
    if not folder.is_dir():
        raise FileNotFoundError(f"no checkpoint folder at {folder}")
    try:
        path = folder / MANIFEST
        sums = read_manifest(path, path.read_bytes(), damaged=CheckpointDamaged, format=FORMAT)
        if set(sums) != {MODEL, STATE, REST}:
            raise CheckpointDamaged(f"{path}: expected the manifest as it was written, got an altered one")
        for name, facts in sums.items():
            yield name, read_checked(folder / name, facts, damaged=CheckpointDamaged)
    except FileNotFoundError as error:
        raise CheckpointDamaged(f"{folder}: expected {Path(error.filename).name}, got no such file") from error


def verify(folder: Path) -> None:
    """Check every file of a checkpoint against its manifest; raises CheckpointDamaged or FileNotFoundError."""
    for _ in _read(folder):
        pass


def _names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def _holds_only_ours(folder: Path) -> bool:
    return folder.is_dir() and not folder.is_symlink() and _names(folder) <= {MODEL, STATE, REST, MANIFEST}


def _delete(folder: Path) -> None:
    for name in _names(folder):
        (folder / name).unlink()
    folder.rmdir()


def _temporary(path: Path) -> Path:
    """A free name beside `path`: a rename is atomic within one file system only."""
    temporary = path.with_name(f".{path.name}.tmp")
    if _holds_only_ours(temporary):
        _delete(temporary)
    return temporary


def _exchange(first: Path, second: Path) -> None:
    """Swap two names in one step; raises OSError where the system cannot."""
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    names = os.fsencode(first), os.fsencode(second)
    if rename is None or rename(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_EXCHANGE) != 0:
        raise OSError(ctypes.get_errno(), f"{second} exists and this system cannot replace it in one step")


def _publish(temporary: Path, path: Path) -> None:
    """Put a complete folder at `path`: at every instant `path` is the old checkpoint or the new one."""
    if not path.exists():
        temporary.rename(path)
        sync(path.parent)
        return
    if not _holds_only_ours(path):
        raise FileExistsError(f"{path}: expected nothing or a checkpoint, got something else")
    _exchange(temporary, path)
    sync(path.parent)
    _delete(temporary)


def save_checkpoint(checkpoint: dict[str, Any], path: str | Path) -> None:
    """Write `checkpoint` to the folder `path`, durable on return; raises OSError, TypeError, CheckpointDamaged.

    After a crash or an error `path` is as before or complete. An existing checkpoint is replaced as a whole.
    """
    path, files = Path(path), _encode(checkpoint)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _temporary(path)
    try:
        temporary.mkdir()
        for name, data in files.items():
            write_new(temporary / name, data)
        sync(temporary)
        verify(temporary)
        _publish(temporary, path)
    except (OSError, CheckpointDamaged):
        if _holds_only_ours(temporary):
            _delete(temporary)
        raise


def load_checkpoint(path: str | Path, *, device: str | torch.device | None = None) -> dict[str, Any]:
    """The checkpoint at `path`, every file verified before anything is decoded; raises CheckpointDamaged.

    Tensors are on the CPU, or on `device`.
    """
    files = dict(_read(Path(path)))
    try:
        checkpoint = _decode(files)
    except (SafetensorError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointDamaged(f"{path}: expected a checkpoint's content, got {error!r}") from error
    checkpoint = convert_checkpoint(checkpoint, path=path)
    return checkpoint if device is None else _move(checkpoint, device)


def remove_checkpoint(path: str | Path) -> None:
    """Delete the checkpoint at `path`, which disappears as a whole; raises OSError."""
    path = Path(path)
    if not _holds_only_ours(path):
        raise FileNotFoundError(f"{path}: expected a checkpoint folder and nothing else in it")
    temporary = _temporary(path)
    path.rename(temporary)
    _delete(temporary)


def _move(value: Any, device: str | torch.device) -> Any:
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, dict):
        return {key: _move(item, device) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_move(item, device) for item in value)
    return value


def _by_step(folder: Path) -> list[Path]:
    """Checkpoints in `folder`, newest first, by the step in their names: clocks and file times can lie."""
    steps = {path: match for path in folder.glob("step_*") if (match := _STEP.fullmatch(path.name))}
    return sorted(steps, key=lambda path: int(steps[path][1]), reverse=True)


def _verified(folder: Path) -> Iterator[Path]:
    """Intact checkpoints, newest first; warns of each damaged one."""
    for path in _by_step(folder):
        try:
            verify(path)
        except (CheckpointDamaged, OSError) as error:
            warnings.warn(f"checkpoint left out: {error}", stacklevel=2)
            continue
        yield path


def newest(folder: Path) -> Path | None:
    """The newest intact checkpoint `step_<number>` in `folder`, None where there is none; warns of damaged ones."""
    return next(_verified(folder), None)


def prune(folder: Path, keep: int = 2) -> list[Path]:
    """Remove the checkpoints older than the `keep` newest intact ones, and unfinished leftovers; returns them.

    Where fewer are intact nothing is removed. Call it between saves, on one process. Raises OSError.
    """
    if keep < 1:
        raise ValueError(f"keep: expected at least 1, got {keep}")
    intact = [path for _, path in zip(range(keep), _verified(folder), strict=False)]
    candidates = _by_step(folder)
    old = candidates[candidates.index(intact[-1]) + 1 :] if len(intact) == keep else []
    for path in old:
        remove_checkpoint(path)
    leftovers = [path for path in folder.glob(".*.tmp") if _holds_only_ours(path)]
    for path in leftovers:
        _delete(path)
    return old + leftovers
