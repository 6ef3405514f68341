"""Pictures of what the model imagines and of what the agent does: frames in, mp4 and PNG files out."""

import io
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import rearrange
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional

from datamodules.storage.durable import write_atomic
from worldmodel.spec import EnvSpec

SEEN = (0.18, 0.65, 0.38)  # the model still receives this frame
IMAGINED = (0.86, 0.24, 0.24)  # the model is on its own
PICTURE_SCALE = 3
GAP, NEUTRAL = 6, 128  # between pictures; grey is quiet on a light and on a dark page


def write_mp4(path: Path | str, frames: NDArray[np.uint8], fps: float) -> Path:
    """Write frames [T, H, W, 3] uint8 as an mp4 (H and W padded to even) and return its path.

    Raises ValueError for other shapes or no frames, RuntimeError where no encoder is installed.
    """
    import av  # only where a film is written

    path, frames = Path(path), _checked(frames)
    frames = np.pad(frames, ((0, 0), (0, frames.shape[1] % 2), (0, frames.shape[2] % 2), (0, 0)), mode="edge")
    temporary = path.with_name(f".{path.name}.tmp")
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(temporary), "w", format="mp4", options={"movflags": "+faststart"}) as container:
        stream = _add_stream(av, container, fps=fps, height=frames.shape[1], width=frames.shape[2])
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")))
        container.mux(stream.encode())
    temporary.replace(path)
    return path


def write_png(path: Path | str, image: NDArray[np.uint8]) -> Path:
    """Write one image [H, W, 3] uint8 as a PNG and return its path."""
    path, content = Path(path), io.BytesIO()
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.ascontiguousarray(image)).save(content, format="PNG", optimize=True)
    write_atomic(path, content.getvalue())
    return path


def open_loop_strip(real: Tensor, imagined: Tensor, *, context: int, scale: int = 3) -> NDArray[np.uint8]:
    """Open-loop prediction as a film [T, H, W, 3] uint8: real above, imagined below, error last, B columns.

    A single window has them side by side: a film three times as high as wide would be small wherever it is played.

    real, imagined: [B, T, 3, h, w] in 0..1. The first `context` frames wear a green border (the model sees them), the
    rest a red one (it imagines). Raises ValueError when the shapes differ or context is not within 0..T.
    """
    rows = _real_imagined_error(real, imagined, context=context)
    B, T = real.shape[:2]

    def frame(t: int) -> NDArray[np.uint8]:
        tiles = [row[:, t] for row in rows]
        columns = [[tile] for tile in tiles] if B == 1 else [tiles]
        return _page(columns, seen=[t < context] * len(columns), scale=scale)

    return np.stack([frame(t) for t in range(T)])


def open_loop_still(
    real: Tensor, imagined: Tensor, *, context: int, columns: int = 12, samples: int = 2, scale: int = 2
) -> NDArray[np.uint8]:
    """Open-loop prediction as one picture [H, W, 3] uint8: time to the right, real, imagined and error for each sample.

    Arguments as in `open_loop_strip`; `columns` moments are spread over T, always with both sides of the context's end.
    """
    rows = _real_imagined_error(real, imagined, context=context)
    moments = _moments(real.shape[1], context=context, columns=columns)
    seen = [t < context for t in moments]
    blocks = [
        _page([[row[b, t][None] for row in rows] for t in moments], seen=seen, scale=scale)
        for b in range(min(samples, real.shape[0]))
    ]
    return _stack_with_gaps(blocks)


def filmstrip(frames: NDArray[np.uint8], *, columns: int = 10) -> NDArray[np.uint8]:
    """At most so many frames of [T, H, W, 3] uint8, evenly spaced in time, side by side as [H, W', 3] uint8."""
    frames = _checked(frames)
    picks = np.unique(np.linspace(0, len(frames) - 1, num=columns).round().astype(int))
    with_gaps = np.pad(frames[picks], ((0, 0), (0, 0), (0, 1), (0, 0)), constant_values=NEUTRAL)
    return rearrange(with_gaps, "t h w c -> h (t w) c")[:, :-1]


def _add_stream(av: Any, container: Any, *, fps: float, height: int, width: int) -> Any:
    codec = "libx264" if "libx264" in av.codecs_available else "mpeg4"
    if codec not in av.codecs_available:
        raise RuntimeError("this PyAV has neither an h264 nor an mpeg4 encoder: pip install --upgrade av")
    stream = container.add_stream(codec, rate=Fraction(fps).limit_denominator(1000))
    stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
    if codec == "libx264":
        stream.options = {"crf": "20", "preset": "fast"}
    else:
        stream.bit_rate = 2_000_000
    return stream


def _checked(frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
    if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype != np.uint8 or not len(frames):
        raise ValueError(f"frames: expected uint8 [T, H, W, 3] with T > 0, got {frames.dtype} {list(frames.shape)}")
    return frames


def _real_imagined_error(real: Tensor, imagined: Tensor, *, context: int) -> tuple[Tensor, Tensor, Tensor]:
    if real.shape != imagined.shape or real.ndim != 5 or real.shape[2] != 3:
        raise ValueError(f"frames: expected two [B, T, 3, h, w], got {list(real.shape)} and {list(imagined.shape)}")
    if not 0 <= context <= real.shape[1]:
        raise ValueError(f"context: expected 0..{real.shape[1]} (T), got {context}")
    real, imagined = (frames.detach().float().cpu().nan_to_num(0).clamp(0, 1) for frames in (real, imagined))
    # Grey is no error: lighter than the truth is brighter, darker is darker.
    return real, imagined, (imagined - real) / 2 + 0.5


def _page(columns: list[list[Tensor]], *, seen: Sequence[bool], scale: int) -> NDArray[np.uint8]:
    """Columns of rows of tiles [B, 3, h, w] as one picture, each column with the border of whether it was seen."""
    tiles = [
        _column(rows, colour=SEEN if here else IMAGINED, scale=scale) for rows, here in zip(columns, seen, strict=True)
    ]
    picture = torch.cat(tiles, dim=2)
    return (picture.permute(1, 2, 0) * 255).round().to(torch.uint8).numpy()


def _column(rows: list[Tensor], *, colour: tuple[float, float, float], scale: int) -> Tensor:
    from torchvision.utils import make_grid  # it loads torch's compiler, for seconds

    B = rows[0].shape[0]
    tiles = functional.interpolate(torch.cat(rows), scale_factor=scale, mode="nearest")
    framed = torch.tensor(colour).reshape(1, 3, 1, 1).expand(len(tiles), 3, tiles.shape[2] + 4, tiles.shape[3] + 4)
    framed = framed.clone()
    framed[:, :, 2:-2, 2:-2] = tiles
    return make_grid(framed, nrow=B, padding=0)


def _moments(length: int, *, context: int, columns: int) -> list[int]:
    spread = set(np.linspace(0, length - 1, num=min(columns, length)).round().astype(int).tolist())
    edge = {t for t in (context - 1, context) if 0 <= t < length}
    spare = sorted(spread - edge - {0, length - 1}, key=lambda t: abs(t - context))
    surplus = len(spread | edge) - columns
    return sorted((spread | edge) - set(spare[: max(0, surplus)]))


def _stack_with_gaps(pictures: list[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    gap = np.full((GAP, pictures[0].shape[1], 3), NEUTRAL, dtype=np.uint8)
    parts = [part for picture in pictures for part in (picture, gap)]
    return np.concatenate(parts[:-1])


def newest_image(frames: Tensor, spec: EnvSpec) -> Tensor:
    """What frames [*R, C, h, w] show last, in colour [*R, 3, h, w]; several cameras are side by side."""
    views = len(spec.visuals.get("camera", {}).get("ids", [0]))
    newest = frames[..., -views * spec.colours :, :, :]
    image = rearrange(newest, "... (v c) h w -> ... c h (v w)", v=views)
    return image.expand(*image.shape[:-3], 3, -1, -1)


def side_by_side(images: Sequence[Tensor]) -> Tensor:
    """Images [T, 3, h_i, w_i] uint8 as one [T, 3, max h_i, W], smaller ones enlarged without smoothing."""
    height = max(image.shape[-2] for image in images)
    sizes = [(height, round(image.shape[-1] * height / image.shape[-2])) for image in images]
    return torch.cat(
        [functional.interpolate(i, size, mode="nearest") for i, size in zip(images, sizes, strict=True)], -1
    )


def enlarged_to(frames: NDArray[np.uint8], height: int) -> NDArray[np.uint8]:
    """Images [T, h, w, 3] as [T, H, W, 3], as often as large as makes them `height` pixels high at least."""
    scale = max(1, -(-height // frames.shape[1]))
    return frames.repeat(scale, 1).repeat(scale, 2)


def enlarged(frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Images [T, 3, h, w] as [T, H, W, 3], enlarged without smoothing: a pixel stays a pixel."""
    colour = frames.transpose(0, 2, 3, 1)
    return np.repeat(np.repeat(colour, PICTURE_SCALE, axis=1), PICTURE_SCALE, axis=2)
