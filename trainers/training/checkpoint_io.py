"""Lightning's checkpoints as folders of checked files; whatever only acts reads them without loading Lightning."""

from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.plugins.io import CheckpointIO

from trainers.run_folder.checkpoint import load_checkpoint, remove_checkpoint, save_checkpoint


class DurableCheckpointIO(CheckpointIO):
    """Saves, loads and removes for Lightning, which calls it on the process of global rank 0 only."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:
        """See `run_folder.checkpoint.save_checkpoint`."""
        save_checkpoint(checkpoint, path)

    def load_checkpoint(
        self, path: str | Path, map_location: Any | None = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """See `run_folder.checkpoint.load_checkpoint`; no file holds code, so `weights_only` changes nothing."""
        return load_checkpoint(path, device=map_location if isinstance(map_location, str | torch.device) else None)

    def remove_checkpoint(self, path: str | Path) -> None:
        """See `run_folder.checkpoint.remove_checkpoint`."""
        remove_checkpoint(path)
