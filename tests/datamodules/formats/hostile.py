"""Files that mean harm: what each does to a data set of three good episodes, of which it spoils the middle one."""

import io
import json
import os
import pickle
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
from PIL import Image
from pyarrow import parquet

from datamodules.formats import images

Spoil = Callable[[Path], object]
CAMERA = "observation.images.camera"
ROWS = 4


class Canary:
    """Unpickling it leaves a file behind."""

    def __init__(self, path: Path) -> None:
        self._path = str(path)

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (Path(self._path),)


def only(folder: Path, pattern: str) -> Path:
    """The second of the files that fit."""
    return sorted(folder.glob(pattern))[1]


def linked_out(path: Path, root: Path) -> None:
    outside = root.parent / f"outside{path.suffix}"
    path.rename(outside)
    path.symlink_to(outside)


def looped(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.name)


def piped(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def halved(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def nested(path: Path) -> None:
    path.write_text('{"a":' * 200_000)


def long(path: Path) -> None:
    path.write_bytes(b'{"a": "' + b"a" * (17 << 20) + b'"}')


def edited(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def playlist(path: Path) -> None:
    path.write_text("#EXTM3U\n#EXT-X-MEDIA-SEQUENCE:0\n#EXTINF:10.0,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n")


def wide_film(path: Path) -> None:
    images.encode_film(path, np.zeros((ROWS, 3, 16, 8208), np.uint8), fps=30, codec="h264")


def large_film(path: Path) -> None:
    images.encode_film(path, np.zeros((1, 3, 4096, 4608), np.uint8), fps=30, codec="h264")


def png_header(width: int, height: int, *, depth: int = 8) -> bytes:
    """A PNG that says it is this large, and holds next to nothing."""

    def part(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    facts = part(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + facts + part(b"IDAT", zlib.compress(bytes(100))) + part(b"IEND", b"")


# ---- npz: one file an episode


def npy(values: object, **options: bool) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array(file, np.asarray(values), **options)
    return file.getvalue()


def npz(*members: tuple[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Spoil:
    def spoil(root: Path) -> None:
        with zipfile.ZipFile(only(root, "*.npz"), "w", method) as archive:
            for name, content in members:
                archive.writestr(name, content)

    return spoil


def npz_arrays(**changes: object) -> Spoil:
    def spoil(root: Path) -> None:
        path = only(root, "*.npz")
        np.savez(path, **{**np.load(path), **changes})

    return spoil


def npz_pickle(root: Path) -> None:
    values = np.array([Canary(root.parent / "canary")], dtype=object)
    np.savez(only(root, "*.npz"), image=values, action=values)


TEBIBYTES = b"\x93NUMPY\x01\x00" + struct.pack("<H", 118)
TEBIBYTES += b"{'descr': '|u1', 'fortran_order': False, 'shape': (8796093022208,), }".ljust(117) + b"\n"
FRAMES = np.zeros((ROWS, 16, 16, 3), np.uint8)
NUMBERS = ("reward", "discount", "is_first", "is_last", "is_terminal", "env_steps")
EMPTY = {"image": 4, "action": 2} | dict.fromkeys(NUMBERS, 1)

NPZ: dict[str, tuple[Spoil, str]] = {
    "pickle": (npz_pickle, "expected"),
    "zeros unpack 1000:1": (npz(("image.npy", npy(np.zeros(100 << 20, np.uint8)))), "unpacked"),
    "8 TiB": (npz(("image.npy", TEBIBYTES)), "expected"),
    "duplicate": (npz(("image.npy", npy(FRAMES)), ("image.npy", npy(FRAMES))), "once"),
    "bzip2": (npz(("image.npy", npy(FRAMES)), method=zipfile.ZIP_BZIP2), "method 12"),
    "traversal": (npz(("../../evil.npy", npy(FRAMES))), "plain member names"),
    "absolute": (npz(("/tmp/evil.npy", npy(FRAMES))), "plain member names"),
    "link out": (lambda root: linked_out(only(root, "*.npz"), root), "inside"),
    "link loop": (lambda root: looped(only(root, "*.npz")), "inside"),
    "pipe": (lambda root: piped(only(root, "*.npz")), "regular file"),
    "half": (lambda root: halved(only(root, "*.npz")), "zip"),
    "float frames": (npz_arrays(image=FRAMES / 255), "uint8"),
    "16-bit frames": (npz_arrays(image=FRAMES.astype(np.uint16)), "uint8"),
    "grey frames": (npz_arrays(image=FRAMES[..., 0]), "uint8"),
    "larger frames": (npz_arrays(image=np.zeros((ROWS, 20, 20, 3), np.uint8)), "pixels: expected uint8"),
    "more actions": (npz_arrays(action=np.zeros((ROWS, 3), np.float32)), "action: expected 2 numbers"),
    "all terminal": (npz_arrays(is_terminal=np.ones(ROWS, bool)), "termination"),
    "no rows": (npz_arrays(**{key: np.zeros((0, 16, 16, 3)[:n], np.uint8) for key, n in EMPTY.items()}), "1 row"),
    "action nan": (npz_arrays(action=np.full((ROWS, 2), np.nan, np.float32)), ""),
}

# ---- mp4 and csv

MP4: dict[str, tuple[Spoil, str]] = {
    "long table": (
        lambda root: only(root, "*.csv").write_bytes(b"action_0,action_1\n" + b"0,0\n" * (5 << 20)),
        "at most",
    ),
    "wide table": (lambda root: only(root, "*.csv").write_text(",".join(f"c{i}" for i in range(100_000))), "action_0"),
    "binary table": (lambda root: only(root, "*.csv").write_bytes(os.urandom(10_000)), "action_0"),
    "table links out": (lambda root: linked_out(only(root, "*.csv"), root), "inside"),
    "table loops": (lambda root: looped(only(root, "*.csv")), "inside"),
    "table is a pipe": (lambda root: piped(only(root, "*.csv")), "regular file"),
    "film links out": (lambda root: linked_out(only(root, "*.mp4"), root), "inside"),
    "film is a pipe": (lambda root: piped(only(root, "*.mp4")), "regular file"),
    "wide film": (lambda root: wide_film(only(root, "*.mp4")), "on a side"),
    "large film": (lambda root: large_film(only(root, "*.mp4")), "pixels"),
    "playlist": (lambda root: playlist(only(root, "*.mp4")), "an mp4"),
    "half a film": (lambda root: halved(only(root, "*.mp4")), "an mp4"),
    "empty film": (lambda root: only(root, "*.mp4").write_bytes(b""), "an mp4"),
    "nested spec": (lambda root: nested(root / "worldmodel.json"), "REFUSED nested"),
    "long spec": (lambda root: long(root / "worldmodel.json"), "REFUSED at most"),
    "spec of huge frames": (
        lambda root: edited(root / "worldmodel.json", spec={"task": "t", "pixels": [3, 10**9, 10**9]}),
        "REFUSED at most",
    ),
}

# ---- LeRobot


def data_of(root: Path) -> Path:
    return only(root, "data/chunk-000/*.parquet")


def film_of(root: Path) -> Path:
    return only(root, f"videos/{CAMERA}/chunk-000/*.mp4")


def column(name: str, values: object) -> Spoil:
    def spoil(root: Path) -> None:
        table = parquet.read_table(data_of(root))
        kept = {key: table[key] for key in table.column_names} | {name: values}
        parquet.write_table(pa.table(kept), data_of(root), compression="zstd")

    return spoil


def line(**changes: int) -> Spoil:
    def spoil(root: Path) -> None:
        path = only(root, "meta/episodes/chunk-000/*.parquet")
        values = parquet.read_table(path).to_pydict()
        parquet.write_table(pa.table(values | {key.replace("__", "/"): [v] for key, v in changes.items()}), path)

    return spoil


def info(**changes: object) -> Spoil:
    return lambda root: edited(root / "meta/info.json", **changes)


def picture(data: bytes | None, path: str | None = None) -> Spoil:
    """The camera's pictures in the table, the second of them this one."""

    def spoil(root: Path) -> None:
        good = images.encode_picture(np.zeros((3, 16, 16), np.uint8))
        values = [{"bytes": good if t != 1 else data, "path": path} for t in range(ROWS)]
        column(CAMERA, pa.array(values, pa.struct([("bytes", pa.binary()), ("path", pa.string())])))(root)

    return spoil


def encoded(mode: str, size: tuple[int, int] = (16, 16)) -> bytes:
    content = io.BytesIO()
    Image.new(mode, size).save(content, format="PNG")
    return content.getvalue()


def extension(root: Path) -> None:
    """A column whose type was once unpickled by pyarrow (CVE-2023-47248)."""
    table = parquet.read_table(data_of(root))
    payload = pickle.dumps(Canary(root.parent / "canary"))
    mark = {"ARROW:extension:name": "arrow.py_extension_type", "ARROW:extension:metadata": payload}
    fields = [field.with_metadata(mark) if field.name == "action" else field for field in table.schema]
    parquet.write_table(pa.table(table.columns, schema=pa.schema(fields)), data_of(root))


def camera_feature(root: Path, **changes: object) -> None:
    content = json.loads((root / "meta/info.json").read_text())
    content["features"][CAMERA] |= changes
    (root / "meta/info.json").write_text(json.dumps(content))


def camera_named(root: Path, name: str) -> None:
    content = json.loads((root / "meta/info.json").read_text())
    content["features"][name] = content["features"].pop(CAMERA)
    (root / "meta/info.json").write_text(json.dumps(content))
    for path in root.glob("meta/episodes/*/*.parquet"):
        table = parquet.read_table(path)
        parquet.write_table(table.rename_columns([key.replace(CAMERA, name) for key in table.column_names]), path)


ZEROS = pa.FixedSizeListArray.from_arrays(pa.array(np.zeros(4 << 20)), 1 << 20)
LEROBOT: dict[str, tuple[Spoil, str]] = {
    "nested info": (lambda root: nested(root / "meta/info.json"), "REFUSED nested"),
    "long info": (lambda root: long(root / "meta/info.json"), "REFUSED at most"),
    "data above": (info(data_path="../../{chunk_index:03d}"), "ALL inside"),
    "absolute data": (info(data_path="/etc/passwd"), "ALL inside"),
    "attribute in a path": (info(data_path="{chunk_index.__class__}"), "ALL a path of"),
    "endless width in a path": (info(data_path="{chunk_index:09999999999d}"), "ALL a path of"),
    "huge shape": (lambda root: camera_feature(root, shape=[100_000, 100_000, 3]), "REFUSED pixels"),
    "camera above": (lambda root: camera_named(root, "../../../etc"), "ALL inside"),
    "nan stats": (lambda root: edited(root / "meta/stats.json", action={"min": [None, 0], "max": [0]}), "REFUSED"),
    "data links out": (lambda root: linked_out(data_of(root), root), "inside"),
    "data loops": (lambda root: looped(data_of(root)), "inside"),
    "data is a pipe": (lambda root: piped(data_of(root)), "regular file"),
    "half the data": (lambda root: halved(data_of(root)), "Parquet"),
    "film links out": (lambda root: linked_out(film_of(root), root), "inside"),
    "film loops": (lambda root: looped(film_of(root)), "inside"),
    "playlist": (lambda root: playlist(film_of(root)), "an mp4"),
    "half a film": (lambda root: halved(film_of(root)), "an mp4"),
    "wide film": (lambda root: wide_film(film_of(root)), "on a side"),
    "large film": (lambda root: large_film(film_of(root)), "pixels"),
    "actions are text": (column("action", ["left"] * ROWS), "numbers"),
    "actions change in number": (column("action", [[0.0, 0.0], [0.0], [0.0, 0.0, 0.0], [0.0, 0.0]]), "2 values"),
    "an action is missing": (column("action", [[0.0, 0.0], None, [0.0, 0.0], [0.0, 0.0]]), "without"),
    "actions nan": (column("action", [[np.nan, 0.0]] * ROWS), ""),
    "reward of structs": (column("next.reward", [{"a": 1.0}] * ROWS), "numbers"),
    "zeros unpack 1000:1": (
        column("next.reward", pa.FixedSizeListArray.from_arrays(pa.array(np.zeros(4 << 20)), 1 << 20)),
        "at most",
    ),
    "a pickled type": (extension, "GOOD"),
    "rows without end": (line(length=1 << 40), "bytes of shape"),
    "negative length": (line(length=-1), "at least 0"),
    "rows beyond the table": (line(dataset_from_index=1 << 40), "end of the table"),
    "rows of others": (line(dataset_from_index=0), "begins at"),
    "file beyond": (line(data__file_index=10**6), "inside"),
    "film beyond its end": (line(**{f"videos__{CAMERA}__from_timestamp": 1e6}), "a frame at"),
    "lines of text": (line(length="many"), "numbers"),
}

PICTURES: dict[str, tuple[Spoil, str]] = {
    "100000 x 100000": (picture(png_header(100_000, 100_000)), "exceeds"),
    "8000 x 8000": (picture(png_header(8000, 8000)), "one frame"),
    "says more than it holds": (picture(png_header(16, 16)), "PNG"),
    "16 bits": (picture(png_header(16, 16, depth=16)), ""),
    "palette": (picture(encoded("P")), "mode P"),
    "transparent": (picture(encoded("RGBA")), "mode RGBA"),
    "another size": (picture(encoded("RGB", (9, 9))), "size="),
    "grey": (picture(encoded("L")), "GOOD"),
    "no picture": (picture(b"GIF89a"), "PNG"),
    "elsewhere": (picture(None, "/etc/passwd"), "bytes"),
    "64 MiB of zeros": (picture(bytes(65 << 20)), "bytes of a page"),
}

# ---- Minari


def in_file(spoil: Callable[[h5py.File, h5py.Group], object]) -> Spoil:
    def spoiled(root: Path) -> None:
        with h5py.File(root / "data/main_data.hdf5", "a") as file:
            spoil(file, file["episode_1"])

    return spoiled


def replaced(name: str, **options: object) -> Spoil:
    def spoil(_: h5py.File, group: h5py.Group) -> None:
        del group[name]
        group.create_dataset(name, **options)

    return in_file(spoil)


def linked(name: str, link: object) -> Spoil:
    def spoil(_: h5py.File, group: h5py.Group) -> None:
        del group[name]
        group[name] = link

    return in_file(spoil)


def chunk_bomb(_: h5py.File, group: h5py.Group) -> None:
    """A chunk of 3 KiB that unpacks to more than 1 GiB; a flushed block of zeros may be repeated as it is."""
    stream = zlib.compressobj(9)
    begin = stream.compress(b"") + stream.flush(zlib.Z_FULL_FLUSH)
    block = stream.compress(bytes(1 << 20)) + stream.flush(zlib.Z_FULL_FLUSH)
    del group["observations"]
    data = group.create_dataset("observations", FRAMES.shape, np.uint8, chunks=(1, 16, 16, 3), compression="gzip")
    data.id.write_direct_chunk((0, 0, 0, 0), begin + block * 1100)


def virtual_data(_: h5py.File, group: h5py.Group) -> None:
    layout = h5py.VirtualLayout(shape=FRAMES.shape, dtype=np.uint8)
    layout[:] = h5py.VirtualSource("/etc/passwd", "x", shape=FRAMES.shape)
    del group["observations"]
    group.create_virtual_dataset("observations", layout)


def circle(file: h5py.File, group: h5py.Group) -> None:
    del group["observations"]
    group["observations"] = file["/"]


def metadata(**changes: object) -> Spoil:
    return lambda root: edited(root / "data/metadata.json", **changes)


FILE_BYTES = [("/etc/passwd", 0, FRAMES.nbytes)]
MINARI: dict[str, tuple[Spoil, str]] = {
    "external link": (linked("observations", h5py.ExternalLink("/etc/passwd", "/x")), "ExternalLink"),
    "soft link": (linked("observations", h5py.SoftLink("/episode_0/observations")), "SoftLink"),
    "soft link loop": (linked("rewards", h5py.SoftLink("rewards")), "SoftLink"),
    "external data": (replaced("observations", shape=FRAMES.shape, dtype="u1", external=FILE_BYTES), "other files"),
    "virtual data": (in_file(virtual_data), "other files"),
    "a circle of groups": (in_file(circle), "uint8 pictures"),
    "8 TiB": (replaced("observations", shape=(1 << 31, 64, 64, 1), dtype="u1", chunks=(1, 64, 64, 1)), "at most"),
    "huge chunk": (replaced("rewards", shape=(3,), dtype="f8", maxshape=(None,), chunks=(1 << 28,)), "chunk"),
    "zeros unpack 1000:1": (
        replaced("observations", data=np.zeros((ROWS, 4096, 4096, 3), np.uint8), compression="gzip"),
        "unpacked to packed",
    ),
    "a chunk unpacks to 1 GiB": (in_file(chunk_bomb), "chunk unpacked"),
    "text": (replaced("rewards", data=["a", "b", "c"]), "expected numbers"),
    "records": (replaced("rewards", data=np.zeros(3, [("a", "f4")])), "expected numbers"),
    "references": (replaced("rewards", shape=(3,), dtype=h5py.ref_dtype), "expected numbers"),
    "float frames": (replaced("observations", data=FRAMES / 255), "uint8 pictures"),
    "16-bit frames": (replaced("observations", data=FRAMES.astype(np.uint16)), "uint8 pictures"),
    "more actions": (replaced("actions", data=np.zeros((3, 7), np.float32)), "action: expected 2 numbers"),
    "fewer actions": (replaced("actions", data=np.zeros((2, 2), np.float32)), "expected"),
    "all terminal": (replaced("terminations", data=np.ones(3, bool)), "termination"),
    "half the file": (lambda root: halved(root / "data/main_data.hdf5"), "REFUSED HDF5"),
    "file links out": (lambda root: linked_out(root / "data/main_data.hdf5", root), "REFUSED inside"),
    "file is a pipe": (lambda root: piped(root / "data/main_data.hdf5"), "REFUSED"),
    "nested metadata": (lambda root: nested(root / "data/metadata.json"), "REFUSED nested"),
    "nested space": (metadata(action_space="[" * 200_000), "REFUSED action_space"),
    "actions without end": (metadata(action_space='{"type": "Discrete", "n": 1000000000000}'), "REFUSED at most"),
}
