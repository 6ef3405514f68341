"""What the robot's camera showed in an episode, as a film and a strip."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from trainers.run_folder.video import enlarged_to, filmstrip, newest_image, side_by_side, write_mp4, write_png
from worldmodel.spec import EnvSpec

FRAMES, BYTES = 600, 100_000_000  # kept at most
HEIGHT = 192  # pixels to which small frames are enlarged
FASTEST = 60.0  # frames per second of a film


class DriveFilm:
    """Keeps frames of a whole episode, however long: every second, every fourth and so on where they become many."""

    def __init__(self, spec: EnvSpec) -> None:
        self._spec, self._every, self._seen = spec, 1, 0
        self._frames: list[dict[str, NDArray[np.uint8]]] = []

    def add(self, observation: Mapping[str, NDArray[Any]]) -> None:
        """Keep a frame, images [h, w, c] uint8 by name among what is observed; it takes microseconds."""
        self._seen += 1
        if (self._seen - 1) % self._every:
            return
        images = {name: observation[name] for name in self._spec.images}
        self._frames.append(images)
        if len(self._frames) >= min(FRAMES, BYTES // max(1, sum(image.nbytes for image in images.values()))):
            self._frames, self._every = self._frames[::2], 2 * self._every

    def write(self, folder: Path, hz: float) -> list[Path]:
        """A film at the speed of the drive, `hz` decisions a second, and a strip; nothing where nothing was seen."""
        if not self._frames or not self._spec.images:
            return []
        columns = [np.stack([frame[name] for frame in self._frames]) for name in self._spec.images]
        images = [newest_image(torch.from_numpy(column).permute(0, 3, 1, 2), self._spec) for column in columns]
        frames = enlarged_to(side_by_side(images).permute(0, 2, 3, 1).numpy(), HEIGHT)
        fps = max(1.0, min(FASTEST, hz / self._every))
        return [write_png(folder / "drive.png", filmstrip(frames)), write_mp4(folder / "drive.mp4", frames, fps)]
