"""Well-formed npz files read as numpy reads them; every hostile or damaged one is a typed refusal."""

import io
import struct
import subprocess
import sys
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest

from datamodules.formats.archive import Archive
from datamodules.formats.protocol import FormatError, HostileFile

NAME = Path("episode.npz")


def npy(values) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array(file, np.asarray(values))
    return file.getvalue()


def header(text: str, version: int = 1) -> bytes:
    length = struct.pack("<H" if version == 1 else "<I", len(text))
    return b"\x93NUMPY" + bytes([version, 0]) + length + text.encode()


def zipped(folder: Path, *members: tuple[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(folder / NAME, "w", method) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return folder


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_reads_what_numpy_writes(tmp_path, save):
    rng = np.random.default_rng(0)
    arrays = {
        "image": rng.integers(0, 255, (5, 8, 8, 3), np.uint8),
        "fortran": np.asfortranarray(rng.random((3, 4))),
        "scalar": np.float32(3.0),
        "flags": np.array([True, False]),
        "empty": np.zeros((0, 3)),
        "big_endian": rng.random(3).astype(">f4"),
        "half": np.zeros(1, np.float16),
    }
    save(tmp_path / NAME, **arrays, text=np.array(["a"]))
    archive = Archive(tmp_path, NAME)
    for key, expected in arrays.items():
        got = archive.read(key)
        assert got.dtype == expected.dtype and got.shape == expected.shape and np.array_equal(got, expected), key
    for key in ("text", "missing"):
        with pytest.raises(FormatError, match=key):
            archive.read(key)


def test_reads_sizes_of_64_bits(tmp_path):
    with zipfile.ZipFile(tmp_path / NAME, "w") as archive, archive.open("a.npy", "w", force_zip64=True) as member:
        member.write(npy(np.arange(9)))
    assert np.array_equal(Archive(tmp_path, NAME).read("a"), np.arange(9))


HUGE = header("{'descr': '|u1', 'fortran_order': False, 'shape': (8796093022208,), }")
HOSTILE = {
    "object array": lambda folder: np.savez(folder / NAME, a=np.array([{}], dtype=object)),
    "structured dtype": lambda folder: np.savez(folder / NAME, a=np.zeros(2, [("x", "f4")])),
    "dates": lambda folder: np.savez(folder / NAME, a=np.zeros(2, "M8[s]")),
    "8 TiB": lambda folder: zipped(folder, ("a.npy", HUGE)),
    "code in the header": lambda folder: zipped(folder, ("a.npy", header("{'descr': exec('1'), 'shape': ()}"))),
    "long header": lambda folder: zipped(folder, ("a.npy", header("(" * 100_000, version=2))),
    "endless digits": lambda folder: zipped(
        folder, ("a.npy", header(f"{{'descr': '|u1', 'fortran_order': False, 'shape': ({'9' * 5000},), }}"))
    ),
    "zeros unpack 1000:1": lambda folder: np.savez_compressed(folder / NAME, a=np.zeros(100 << 20, np.uint8)),
    "bzip2": lambda folder: zipped(folder, ("a.npy", npy([1])), method=zipfile.ZIP_BZIP2),
    "duplicate": lambda folder: zipped(folder, ("a.npy", npy([1])), ("a.npy", npy([2]))),
    "duplicate key": lambda folder: zipped(folder, ("a.npy", npy([1])), ("a", npy([2]))),
    "parent folder": lambda folder: zipped(folder, ("../a.npy", npy([1]))),
    "absolute": lambda folder: zipped(folder, ("/a.npy", npy([1]))),
    "line break": lambda folder: zipped(folder, ("a\nb.npy", npy([1]))),
    "many members": lambda folder: zipped(folder, *((f"{i}.npy", npy([1])) for i in range(300))),
    "shape against bytes": lambda folder: zipped(folder, ("a.npy", npy(np.zeros(8)) + b"more")),
}


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_files_are_refused_by_name(tmp_path, kind):
    HOSTILE[kind](tmp_path)
    with pytest.raises(HostileFile, match=str(NAME)):
        Archive(tmp_path, NAME)


def test_overlapping_members_are_refused(tmp_path):
    zipped(tmp_path, ("a.npy", npy(np.arange(50))), ("b.npy", npy(np.arange(50))), method=zipfile.ZIP_STORED)
    content = bytearray((tmp_path / NAME).read_bytes())
    second = content.rfind(b"PK\x01\x02")
    content[second + 42 : second + 46] = struct.pack("<L", 10)
    (tmp_path / NAME).write_bytes(content)
    with pytest.raises(HostileFile, match="overlapping"):
        Archive(tmp_path, NAME)


def test_a_stream_longer_than_declared_is_cut_off(tmp_path):
    content = npy(np.zeros(1000, np.uint8))
    zipped(tmp_path, ("a.npy", content + bytes(50 << 20)))
    data = bytearray((tmp_path / NAME).read_bytes())
    entry = data.rfind(b"PK\x01\x02")
    data[entry + 24 : entry + 28] = struct.pack("<L", len(content))
    (tmp_path / NAME).write_bytes(data)
    archive = Archive(tmp_path, NAME)
    tracemalloc.start()
    with pytest.raises(FormatError, match="a: expected 1128 bytes"):
        archive.read("a")
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


def test_any_damage_is_a_typed_error_or_harmless(tmp_path):
    """Cuts and flips everywhere: what is still read equals what was written, for the checksum covers it."""
    values = np.arange(300, dtype=np.int32)
    rng = np.random.default_rng(0)
    np.savez_compressed(tmp_path / NAME, a=values, b=values)
    whole, refused = (tmp_path / NAME).read_bytes(), 0
    for k in range(600):
        data = bytearray(whole)
        if k % 5 == 0:
            del data[rng.integers(len(data)) :]
        else:
            data[rng.integers(len(data))] ^= 1 << rng.integers(8)
        (tmp_path / NAME).write_bytes(data)
        try:
            archive = Archive(tmp_path, NAME)
            assert all(np.array_equal(archive.read(key), values) for key in archive.members)
        except FormatError:
            refused += 1
    assert refused > 400


def test_refusals_take_no_memory(tmp_path):
    """In a process of 1 GB in all, unpacked sizes of 900 MB and 8 TiB end as refusals, not as MemoryError."""
    np.savez_compressed(tmp_path / NAME, a=np.zeros(900 << 20, np.uint8))
    zipped(tmp_path / "..", ("a.npy", HUGE))
    code = f"""
import resource; resource.setrlimit(resource.RLIMIT_AS, ({1 << 30}, {1 << 30}))
from pathlib import Path
from datamodules.formats.archive import Archive
from datamodules.formats.protocol import HostileFile
for folder in ({str(tmp_path)!r}, {str(tmp_path.parent)!r}):
    try:
        Archive(Path(folder), Path({str(NAME)!r}))
    except HostileFile:
        print(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    peaks = [int(line) for line in done.stdout.split()]
    assert len(peaks) == 2 and max(peaks) < 200_000, done.stdout


def test_what_unpacks_to_far_more_than_it_is_is_refused(tmp_path):
    np.savez_compressed(tmp_path / NAME, a=np.zeros(70 << 20, np.uint8))
    with pytest.raises(HostileFile, match="unpacked to packed"):
        Archive(tmp_path, NAME)
