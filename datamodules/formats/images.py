"""Encoded images: PNG and JPEG pictures, mp4 films through PyAV; what a file may ask of a decoder has bounds."""

import io
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from datamodules.formats.guard import LIMITS, require_image
from datamodules.formats.protocol import FormatError, HostileFile, reading
from datamodules.storage.durable import beside, publish

# no B-frames: a decoder then gives frames in the order of their time; small groups make a seek cheap
_LOSSLESS = ("libx264rgb", {"qp": "0", "preset": "ultrafast", "bf": "0", "threads": "1"})
_LOSSY = ("libx264", {"crf": "18", "preset": "veryfast", "g": "2", "bf": "0", "threads": "1"})
_FIRST_BOXES = {b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide"}  # ISO/IEC 14496-12, and QuickTime
CODECS = {"lossless": _LOSSLESS, "h264": _LOSSY}


def is_encoded(data: bytes) -> bool:
    """Whether bytes begin as a PNG or a JPEG does."""
    return data.startswith((b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"))


def decode_picture(data: bytes, name: str, *, grey: bool = False) -> NDArray[np.uint8]:
    """A PNG or JPEG as uint8 [h, w, 3], one of grey repeated, or with `grey` as [h, w, 1].

    Raises HostileFile, FormatError.
    """
    from PIL import Image, UnidentifiedImageError

    # a header is all that `open` reads: the size is known before a pixel is
    try:
        with Image.open(io.BytesIO(data), formats=("PNG", "JPEG")) as image:
            require_image(name, image.width, image.height)
            if image.mode not in ("RGB", "L"):
                raise FormatError(f"{name}: expected 8-bit RGB or grey, got mode {image.mode}")
            if grey and image.mode == "L":
                return np.asarray(image)[:, :, None]
            return np.asarray(image.convert("RGB"))
    except FormatError:
        raise
    except (Image.DecompressionBombError, MemoryError) as error:
        raise HostileFile(f"{name}: {error}") from error
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, EOFError) as error:
        raise FormatError(f"{name}: expected a PNG or JPEG, got {error}") from error


def encode_picture(frame: NDArray[np.uint8], *, grey: bool = False) -> bytes:
    """Frame [3 or 1, h, w] as a PNG of colours; `grey`: of grey where it has one channel."""
    from PIL import Image

    content = io.BytesIO()
    picture = np.broadcast_to(frame, (3, *frame.shape[1:])).transpose(1, 2, 0)
    picture = frame[0] if grey and len(frame) == 1 else picture
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


def encode_film(path: Path, frames: NDArray[np.uint8], *, fps: float, codec: str) -> None:
    """Write frames [T, 3 or 1, h, w] as an mp4 that appears whole or not at all; codec "lossless" (RGB) or "h264".

    Raises OSError, FormatError for an unknown codec or where this PyAV cannot encode it.
    """
    import av

    name, options = require_codec(codec)
    height, width = frames.shape[2:]
    # chroma is halved only where both sides are even
    pix_fmt = "rgb24" if codec == "lossless" else "yuv420p" if height % 2 == width % 2 == 0 else "yuv444p"
    with av.open(str(beside(path)), "w", format="mp4") as container:
        stream: Any = container.add_stream(name, rate=Fraction(fps).limit_denominator(1000))
        stream.width, stream.height, stream.pix_fmt, stream.options = width, height, pix_fmt, options
        for frame in frames:
            picture = np.ascontiguousarray(np.broadcast_to(frame, (3, height, width)).transpose(1, 2, 0))
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    publish(path)


def require_codec(codec: str) -> tuple[str, dict[str, str]]:
    """PyAV's name and options of a codec; raises FormatError for an unknown one or where this PyAV lacks it."""
    import av

    if codec not in CODECS:
        raise FormatError(f"codec: expected one of {', '.join(CODECS)}, got {codec!r}")
    if CODECS[codec][0] not in av.codecs_available:
        raise FormatError(f"codec: expected a PyAV with {CODECS[codec][0]}, got one without: pip install --upgrade av")
    return CODECS[codec]


def require_fps(fps: float) -> None:
    """Raise FormatError for a number of frames a second that no film has."""
    if not 0 < fps <= 1000:
        raise FormatError(f"fps: expected a number in (0, 1000], got {fps}")


class Film:
    """An open mp4 file. height, width: of its frames.

    Raises HostileFile for frames that are too large, FormatError for what is no film.
    """

    def __init__(self, file: BinaryIO, name: str) -> None:
        import av

        self._errors = (av.FFmpegError, av.error.MemoryError, ValueError)
        self._file, self._name = file, name
        # a named demuxer, no protocols: a playlist under an mp4's name must not make the library open other files
        options = {"max_pixels": str(LIMITS.image_pixels), "protocol_whitelist": "none", "threads": "1"}
        # an empty file crashes PyAV 18
        if file.read(8)[4:] not in _FIRST_BOXES:
            file.close()
            raise FormatError(f"{name}: expected an mp4, got another kind of file or an empty one")
        file.seek(0)
        try:
            self._container: Any = av.open(file, format="mp4", options=options)
        except self._errors as error:
            file.close()
            raise FormatError(f"{name}: expected an mp4, got {error}") from error
        try:
            self._require_stream()
        except FormatError:
            self.close()
            raise

    def _require_stream(self) -> None:
        self._stream: Any = next(iter(self._container.streams.video), None)
        if self._stream is None or self._stream.codec_context is None or not self._stream.time_base:
            raise FormatError(f"{self._name}: expected a video stream of a known codec, got none")
        self.height, self.width = self._stream.codec_context.height, self._stream.codec_context.width
        require_image(self._name, self.width, self.height)
        if not self.height * self.width:  # the decoder forgets a size that it refuses
            raise HostileFile(f"{self._name}: expected at most {LIMITS.image_pixels} pixels a frame, got more or none")

    def sequence(self) -> Iterator[NDArray[np.uint8]]:
        """Every frame [h, w, 3] from the beginning, in order; raises FormatError."""
        for frame in self._decode():
            yield self._pixels(frame)

    def at(self, start: float, *, fps: float, count: int) -> Iterator[NDArray[np.uint8]]:
        """The frames [h, w, 3] at start, start + 1 / fps, ... seconds; raises FormatError where one is missing."""
        shown = 0
        for frame in self._decode(start):
            index = -1 if frame.time is None else round((frame.time - start) * fps)
            if index > shown:
                break
            if index == shown:
                yield self._pixels(frame)
                shown += 1
            if shown == count:
                return
        raise FormatError(f"{self._name}: expected a frame at {start + shown / fps:.3f} s, got none")

    def _decode(self, start: float | None = None) -> Iterator[Any]:
        with reading(f"{self._name}: expected frames, got", self._errors):
            if start is not None:
                # a film's clock may begin late, and the frame asked for may be rounded to just before `start`
                ticks = int(start / self._stream.time_base) - 1
                self._container.seek(max(0, ticks), stream=self._stream, backward=True)
            yield from self._container.decode(self._stream)

    def _pixels(self, frame: Any) -> NDArray[np.uint8]:
        if (frame.height, frame.width) != (self.height, self.width):
            raise FormatError(
                f"{self._name}: expected frames of {self.width}x{self.height}, got {frame.width}x{frame.height}"
            )
        with reading(f"{self._name}: expected frames of colours, got", self._errors):
            return frame.to_ndarray(format="rgb24")

    def close(self) -> None:
        self._container.close()
        self._file.close()
