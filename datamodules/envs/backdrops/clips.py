"""Frames of a user's videos and pictures, decoded once and kept small."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from datamodules.envs.errors import BadOption

VIDEOS = (".mp4", ".mkv", ".mov", ".avi", ".webm", ".gif")
PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")
LONGEST = 250  # frames of a clip; what follows is left out
KEPT = 16  # clips in memory, 3 MB each at 64 x 64

Frames = NDArray[np.uint8]


class Clips:
    """The clips of a file or folder: every video is one, and so are all pictures of one folder in order of their names.

    Raises BadOption where there is nothing to show.
    """

    def __init__(self, path: str, *, size: tuple[int, int]) -> None:
        self._size = size
        self.clips = find(Path(path).expanduser())
        self._kept: dict[int, Frames] = {}

    def frames(self, index: int) -> Frames:
        """Frames [T, 3, h, w] of one of `clips`; raises BadOption for one that cannot be read."""
        if index not in self._kept:
            if len(self._kept) >= KEPT:
                del self._kept[next(iter(self._kept))]
            self._kept[index] = _decode(self.clips[index], self._size)
        return self._kept[index]


class Playback:
    """A clip from a random frame on, forwards and backwards in turns, so that it never jumps."""

    def __init__(self, clips: Clips, *, rng: np.random.Generator) -> None:
        self._frames = clips.frames(int(rng.integers(len(clips.clips))))
        self._start = int(rng.integers(len(self._frames)))

    def frame(self, time: int) -> Frames:
        """The picture [3, h, w] at frame `time` of the episode."""
        last = len(self._frames) - 1
        place = (self._start + time) % (2 * last) if last else 0
        return self._frames[min(place, 2 * last - place)]


def find(path: Path) -> list[list[Path]]:
    """Clips of a path in order of their names, each the file of a video or the files of pictures."""
    files = sorted(file for file in (path.rglob("*") if path.is_dir() else [path]) if file.is_file())
    clips = [[file] for file in files if file.suffix.lower() in VIDEOS]
    pictures = [file for file in files if file.suffix.lower() in PICTURES]
    folders = dict.fromkeys(file.parent for file in pictures)
    clips += [[file for file in pictures if file.parent == folder] for folder in folders]
    if not clips:
        raise BadOption(f"visuals.background.videos: expected a video, or a folder of videos or pictures, got {path}")
    return clips


def _decode(files: list[Path], size: tuple[int, int]) -> Frames:
    read = _video if files[0].suffix.lower() in VIDEOS else _pictures
    frames = list(islice(read(files, size), LONGEST))
    if not frames:
        raise BadOption(f"visuals.background.videos: {files[0]} has no frames")
    return np.stack(frames).transpose(0, 3, 1, 2).copy()


def _video(files: list[Path], size: tuple[int, int]) -> Iterator[Frames]:
    import av

    height, width = size
    try:
        with av.open(str(files[0])) as container:
            for frame in container.decode(video=0):
                yield frame.to_ndarray(format="rgb24", height=height, width=width).astype(np.uint8, copy=False)
    except (av.FFmpegError, IndexError) as error:
        raise BadOption(f"visuals.background.videos: {files[0]} cannot be decoded: {error}") from error


def _pictures(files: list[Path], size: tuple[int, int]) -> Iterator[Frames]:
    from PIL import Image

    height, width = size
    for file in files:
        try:
            with Image.open(file) as picture:
                yield np.asarray(picture.convert("RGB").resize((width, height), Image.Resampling.BILINEAR))
        except (OSError, ValueError, Image.DecompressionBombError) as error:
            raise BadOption(f"visuals.background.videos: {file} cannot be read: {error}") from error
