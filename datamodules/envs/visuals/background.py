"""A moving background behind what matters: distractors for studies of generalisation.

Smooth drifting colour fields, plane waves of random direction, length and pace; or frames of a user's videos and
pictures, decoded once and kept small.
"""

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datamodules.envs.errors import BadOption
from datamodules.envs.protocol import Env, Step
from datamodules.envs.wrapper import Wrapper, background_of, colour_views

# keeps these draws apart from those that other options make from the same seed
_STREAM = 2
WAVES = 8  # per colour
WAVE_LENGTHS = 0.25, 1.5  # of the image's side
WAVE_PERIODS = 40, 160  # frames
VIDEOS = (".mp4", ".mkv", ".mov", ".avi", ".webm", ".gif")
PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")
CLIP_FRAMES = 250  # what follows in a clip is left out
CLIPS_KEPT = 16  # in memory, 3 MB each at 64 x 64

Frames = NDArray[np.uint8]


class Background(Wrapper):
    """Background pixels show a pattern that moves one frame with every decision, another one in every episode.

    videos: a video, or a folder of videos or pictures, see Clips; by default drifting colours, see Waves. key_colour:
    the RGB of background pixels, for a source that cannot tell them (`background_mask`). All views of one frame have
    the same pattern. Raises BadOption for a source with neither.
    """

    def __init__(self, env: Env, *, videos: str | None = None, key_colour: Any = None) -> None:
        super().__init__(env)
        self._views = colour_views(env, "background")
        sizes = [shape[1:] for shape in env.spec.images.values()]
        self._key = None if key_colour is None else _checked_colour(key_colour)
        self._tells = background_of(env)
        if self._key is None and self._tells is None:
            raise BadOption(
                "expected a source that tells its background (dmc, toy) and no frame_stack or "
                "resize before it, or a key_colour: [red, green, blue]",
                key="visuals.background",
            )
        self._clips = None if videos is None else {size: Clips(videos, size=size) for size in sizes}
        self._sizes, self._patterns = set(sizes), dict[tuple[int, int], Waves | Playback]()
        self._time = 0

    def _begin(self, seed: int) -> None:
        for size in self._sizes:
            # the same draws for images of every size
            rng = np.random.default_rng([_STREAM, seed])
            self._patterns[size] = (
                Waves(size=size, rng=rng) if self._clips is None else Playback(self._clips[size], rng=rng)
            )
        self._time = -1

    def _shown(self, step: Step) -> Step:
        self._time += 1
        return super()._shown(step)

    def _see(self, name: str, image: NDArray[np.uint8], *, opens: bool) -> NDArray[np.uint8]:
        size = image.shape[1:]
        views = image.reshape(self._views[name], 3, *size)
        seen = np.where(self._mask(name, views)[:, None], self._patterns[size].frame(self._time), views)
        return seen.reshape(image.shape)

    def _mask(self, name: str, views: NDArray[np.uint8]) -> NDArray[np.bool_]:
        if self._key is not None:
            return (views == self._key[:, None, None]).all(axis=1)
        assert self._tells is not None
        return self._tells(name)


def _checked_colour(colour: Any) -> NDArray[np.uint8]:
    valid = isinstance(colour, Sequence) and len(colour) == 3 and all(type(c) is int and 0 <= c <= 255 for c in colour)
    if not valid:
        raise BadOption(f"expected three numbers in 0..255, got {colour!r}", key="visuals.background.key_colour")
    return np.array(colour, np.uint8)


class Waves:
    """Each colour is mid-grey plus sum_k a_k cos(2 pi (x, y) . f_k + phase_k + w_k t), all drawn from one seed.

    A sum over two factors of cosines is a product of matrices: [h, 2 K] @ [2 K, w] for each colour.
    """

    def __init__(self, *, size: tuple[int, int], rng: np.random.Generator) -> None:
        height, width = size
        shape = (3, WAVES, 1)
        frequency = 1 / rng.uniform(*WAVE_LENGTHS, shape)
        direction, self._phase = rng.uniform(0, 2 * np.pi, (2, *shape))
        self._pace = rng.choice((-1, 1), shape) * 2 * np.pi / rng.uniform(*WAVE_PERIODS, shape)
        # long waves are strong ones; one standard deviation of a colour is a quarter of its range
        amplitude = 1 / frequency
        amplitude *= 64 / np.sqrt((amplitude**2).sum(1, keepdims=True) / 2)
        y = 2 * np.pi * frequency * np.sin(direction) * np.arange(height) / height
        self._x = 2 * np.pi * frequency * np.cos(direction) * np.arange(width) / width
        # cos(x + y) = cos(y) cos(x) - sin(y) sin(x)
        rows = np.concatenate([amplitude * np.cos(y), -amplitude * np.sin(y)], axis=1)
        self._rows = rows.transpose(0, 2, 1).astype(np.float32)

    def frame(self, time: int) -> NDArray[np.uint8]:
        """The field [3, h, w] at frame `time` of the episode."""
        x = (self._x + self._phase + self._pace * time).astype(np.float32)
        field = self._rows @ np.concatenate([np.cos(x), np.sin(x)], axis=1)
        return (field + np.float32(127.5)).clip(0, 255).astype(np.uint8)


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
            if len(self._kept) >= CLIPS_KEPT:
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
        raise BadOption(
            f"expected a video, or a folder of videos or pictures, got {path}", key="visuals.background.videos"
        )
    return clips


def _decode(files: list[Path], size: tuple[int, int]) -> Frames:
    read = _video if files[0].suffix.lower() in VIDEOS else _pictures
    frames = list(islice(read(files, size), CLIP_FRAMES))
    if not frames:
        raise BadOption(f"{files[0]} has no frames", key="visuals.background.videos")
    return np.stack(frames).transpose(0, 3, 1, 2).copy()


def _video(files: list[Path], size: tuple[int, int]) -> Iterator[Frames]:
    import av

    height, width = size
    try:
        with av.open(str(files[0])) as container:
            for frame in container.decode(video=0):
                yield frame.to_ndarray(format="rgb24", height=height, width=width).astype(np.uint8, copy=False)
    except (av.FFmpegError, IndexError) as error:
        raise BadOption(f"{files[0]} cannot be decoded: {error}", key="visuals.background.videos") from error


def _pictures(files: list[Path], size: tuple[int, int]) -> Iterator[Frames]:
    from PIL import Image

    height, width = size
    for file in files:
        try:
            with Image.open(file) as picture:
                yield np.asarray(picture.convert("RGB").resize((width, height), Image.Resampling.BILINEAR))
        except (OSError, ValueError, Image.DecompressionBombError) as error:
            raise BadOption(f"{file} cannot be read: {error}", key="visuals.background.videos") from error


make = Background
