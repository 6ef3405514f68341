"""Every block of code in docs/parts.md runs."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/parts.md").read_text()
BLOCKS = re.findall(r"^```python\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_a_block_runs(number, finished, tmp_path, monkeypatch):
    shutil.copytree(finished, tmp_path / "runs/cartpole_swingup/x")
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "example", "frames": np.zeros((2, 48, 64, 3), np.uint8)}
    exec(compile(BLOCKS[number], f"block {number}", "exec"), names)
    if "planner" in names:
        assert names["plan"].action.shape == (3, 1) and (names["plan"].action > 0.9).all()
    if "replay" in names:
        assert names["batch"].pixels.shape == (8, 5, 3, 16, 16)
    if "rssm" in names:
        assert names["loss"].isfinite()
    if "agent" in names:
        assert names["actions"].shape == (2, 2)


def test_all_parts_are_shown():
    assert len(BLOCKS) == 4 and all(word in PAGE for word in ("rssm", "CEM", "Replay", "load_agent"))
