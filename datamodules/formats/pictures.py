"""Single pictures: decoded within bounds, and fitted to the size that a model takes."""

import io
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from datamodules.formats.guard import require_image
from datamodules.formats.protocol import FormatError, HostileFile


def decode(data: bytes, name: str) -> NDArray[np.uint8]:
    """A PNG or JPEG as [h, w, 3] uint8, grey repeated; raises HostileFile, FormatError."""
    from PIL import Image, UnidentifiedImageError

    # a header is all that `open` reads: the size is known before a pixel is
    try:
        with Image.open(io.BytesIO(data), formats=("PNG", "JPEG")) as image:
            require_image(name, image.width, image.height)
            if image.mode not in ("RGB", "L"):
                raise FormatError(f"{name}: expected 8-bit RGB or grey, got mode {image.mode}")
            return np.asarray(image.convert("RGB"))
    except FormatError:
        raise
    except (Image.DecompressionBombError, MemoryError) as error:
        raise HostileFile(f"{name}: {error}") from error
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, EOFError) as error:
        raise FormatError(f"{name}: expected a PNG or JPEG, got {error}") from error


def encode(frame: NDArray[np.uint8]) -> bytes:
    """Frame [3 or 1, h, w] as a PNG."""
    from PIL import Image

    content = io.BytesIO()
    picture = np.broadcast_to(frame, (3, *frame.shape[1:])).transpose(1, 2, 0)
    Image.fromarray(np.ascontiguousarray(picture)).save(content, format="PNG", compress_level=1)
    return content.getvalue()


def fit(frame: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Frame [h, w, 3] as [*size, 3] by the mean over each pixel's area; what has the size already is untouched."""
    from PIL import Image

    if frame.shape[:2] == size:
        return frame
    return np.asarray(Image.fromarray(frame).resize(size[::-1], Image.Resampling.BOX))


def stack(
    frames: Iterator[NDArray[np.uint8]], rows: int, shape: tuple[int, int, int], *, name: str, resize: bool
) -> NDArray[np.uint8]:
    """The next `rows` of `frames` [h, w, 3] as [rows, *shape] uint8; one channel is the first, `resize` fits the size.

    Raises FormatError for fewer frames or another size.
    """
    pixels = np.empty((rows, *shape), np.uint8)
    for t in range(rows):
        frame = next(frames, None)
        if frame is None:
            raise FormatError(f"{name}: expected {rows} frames, one for each row, got {t}")
        frame = fit(frame, shape[1:]) if resize else frame
        if frame.shape[:2] != shape[1:]:
            raise FormatError(f"{name}: expected frames of {shape[1:]}, got {frame.shape[:2]}: see ?size=")
        pixels[t] = frame.transpose(2, 0, 1)[: shape[0]]
    return pixels
