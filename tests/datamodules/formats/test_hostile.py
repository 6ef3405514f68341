"""Every hostile file is refused by name, in little memory and time, and never stops the good ones beside it."""

import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from datamodules.formats.uri import open_writer
from tests.datamodules.formats import scan
from tests.datamodules.formats.episodes import SPEC, episode
from tests.datamodules.formats.hostile import LEROBOT, MINARI, MP4, NPZ, PICTURES, ROWS, Spoil

FLIPS = 25
ROOT = Path(__file__).resolve().parents[3]
# what a case is expected to say: REFUSED the data set, ALL of its episodes left out, GOOD, else one episode left out
GROUPS = {
    "npz:{}": NPZ,
    "mp4:{}": MP4,
    "lerobot:{}?codec=lossless": LEROBOT,
    "lerobot:{}?codec=png": PICTURES,
    "minari:{}": MINARI,
}


def good(uri: str) -> None:
    writer = open_writer(uri, SPEC)
    for seed in range(3):
        writer.write(episode(ROWS, seed))
    writer.close()


def damage(folder: Path, rng: random.Random) -> None:
    """Some wrong bytes in one file, or its end cut off: whatever comes of it, the scan has to answer."""
    path = rng.choice(sorted(each for each in folder.rglob("*") if each.is_file()))
    content = bytearray(path.read_bytes())
    for _ in range(rng.randint(1, 4)):
        content[rng.randrange(len(content))] = rng.randrange(256)
    path.write_bytes(content[: rng.randrange(len(content))] if rng.random() < 0.2 else content)


def scanned(folder: Path, uris: list[str], warm: str) -> tuple[list[dict], int]:
    """What a process of few rights found at the addresses, and the bytes that it grew by."""
    command = [sys.executable, scan.__file__, str(folder), warm, *uris]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    report = json.loads(done.stdout.splitlines()[-1])
    return report["results"], report["grown"]


@pytest.mark.parametrize("uri", GROUPS)
def test_hostile_files_are_refused(tmp_path, uri):
    cases: dict[str, tuple[Spoil, str]] = GROUPS[uri]
    good(uri.format(tmp_path / "warm"))
    uris = []
    for k, (spoil, _) in enumerate(cases.values()):
        folder = tmp_path / str(k) / "set"
        shutil.copytree(tmp_path / "warm", folder)
        spoil(folder)
        uris.append(uri.partition("?")[0].format(folder))
    for seed in range(FLIPS):
        folder = tmp_path / f"flip{seed}" / "set"
        shutil.copytree(tmp_path / "warm", folder)
        damage(folder, random.Random(seed))
        uris.append(uri.partition("?")[0].format(folder))
    results, grown = scanned(tmp_path, uris, uri.partition("?")[0].format(tmp_path / "warm"))
    assert not (tmp_path / "canary").exists() and not list(tmp_path.glob("*/canary"))
    wrong = {}
    for (name, (_, expected)), result in zip(cases.items(), results[: len(cases)], strict=True):
        if not as_expected(expected, result) or result["seconds"] > 5:
            wrong[name] = (expected, result)
    assert not wrong, wrong
    assert len(results) == len(cases) + FLIPS
    assert grown < 512 << 20, f"{grown >> 20} MiB"


def as_expected(expected: str, result: dict) -> bool:
    kind, _, reason = expected.partition(" ") if expected.split(" ")[0].isupper() else ("", "", expected)
    if kind == "REFUSED":
        return "refused" in result and reason in result["reason"]
    if "refused" in result:
        return False
    found, left_out = len(result["names"]), list(result["problems"].values())
    if kind == "GOOD":
        return (found, left_out) == (3, [])
    wanted = (0, 3) if kind == "ALL" else (2, 1)
    return (found, len(left_out)) == wanted and all(reason in each for each in left_out)


def test_the_sandbox_forbids(tmp_path):
    """The rights of the scanning process are few indeed: this is what makes the tests above mean something."""
    good(f"npz:{tmp_path}/warm")
    lines = {
        "import this": "forbidden: import",
        "open('/tmp/forbidden', 'w')": "forbidden: open",
        "exec('1')": "forbidden: ",
        "bytearray(3 << 30)": "MemoryError",
    }
    for line, expected in lines.items():
        text = Path(scan.__file__).read_text().replace("    results = ", f"    {line}\n    results = ")
        script = tmp_path / "scan.py"
        script.write_text(text)
        command = [sys.executable, str(script), str(tmp_path), f"npz:{tmp_path}/warm"]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode != 0 and expected in done.stderr, (line, done.stderr[-500:])
