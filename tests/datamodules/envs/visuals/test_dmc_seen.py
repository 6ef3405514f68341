"""Cameras and backgrounds of the control suite."""

import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[4]


@pytest.fixture(scope="module")
def facts(tmp_path_factory):
    out = tmp_path_factory.mktemp("seen") / "facts.npz"
    command = [sys.executable, str(Path(__file__).with_name("dmc_seen.py")), str(out)]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    run = subprocess.run(command, env=env, capture_output=True, check=False, text=True, timeout=120)
    assert run.returncode == 0, run.stderr[-3000:]
    return dict(np.load(out))


@pytest.mark.parametrize(
    ("plain", "behind"), [("plain", "behind"), ("walker", "walker_behind"), ("both", "both_behind")]
)
def test_a_background_leaves_the_body_untouched_and_covers_all_else(facts, plain, behind):
    frames, masks = facts[f"{plain}/frames"], facts[f"{plain}/masks"]
    seen = facts[f"{behind}/frames"]
    views = frames.reshape(8, -1, 3, 48, 48)
    covered = np.repeat(masks[:, :, None], 3, axis=2).reshape(frames.shape)
    np.testing.assert_array_equal(seen[~covered], frames[~covered])
    assert (seen[covered] != frames[covered]).mean() > 0.95
    # the bodies are orange, what is masked is blue: nothing of a body is in the mask
    orange = views[:, :, 0].astype(int) - views[:, :, 2] > 30
    assert orange.sum() > 100 and not (orange & masks).any()
    assert 0.8 < masks.mean() < 1


def test_a_background_moves_smoothly_and_belongs_to_the_seed(facts):
    seen, again, other = (facts[f"{group}/frames"].astype(int) for group in ("behind", "again", "other"))
    np.testing.assert_array_equal(seen, again)
    assert np.abs(seen[0] - other[0]).mean() > 20
    moves = [np.abs(after - before).mean() for before, after in pairwise(seen)]
    assert min(moves) > 0.5 and max(moves) < 20


def test_cameras_are_channels_in_the_given_order(facts):
    plain, second, both = (facts[f"{group}/frames"] for group in ("plain", "second", "both"))
    assert facts["second/shape"].tolist() == [3, 48, 48] and facts["both/shape"].tolist() == [6, 48, 48]
    np.testing.assert_array_equal(both, np.concatenate([second, plain], axis=1))
    assert (second != plain).any()


def test_videos_show_the_first_camera_without_distractors(facts):
    np.testing.assert_array_equal(facts["plain/film"].transpose(2, 0, 1), facts["plain/frames"][-1])
    np.testing.assert_array_equal(facts["both/film"].transpose(2, 0, 1), facts["second/frames"][-1])
    np.testing.assert_array_equal(facts["behind/film"], facts["plain/film"])


def test_a_wrong_camera_is_answered_with_those_that_there_are(facts):
    assert str(facts["refused/number"]) == "camera: expected 0 (fixed), 1 (lookatcart), -1 (free), got 7"
    assert str(facts["refused/name"]).endswith("got 'side'")
    assert "expected a list of cameras, got 'fixed'" in str(facts["refused/text"])
