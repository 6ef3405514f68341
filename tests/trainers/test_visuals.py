"""Visual options of a run: from the command line to frames, records and films, and other ones for its evaluation."""

import json

import pytest
import torch
import yaml

from trainers import evaluate, fit
from trainers.build.environments import open_evaluation_pool, open_pool, require_evaluation
from trainers.command.configuration import BadConfig, load_config, override_saved
from trainers.command.preflight import check
from trainers.run_folder.video import newest_image, side_by_side
from worldmodel.spec import EnvSpec

STACKED = ("task.visuals.grayscale={}", "task.visuals.frame_stack.count=2")


def spec_of(channels, **visuals):
    return EnvSpec("x", {"pixels": (channels, 2, 2)}, action_dim=2, action_repeat=1, episode_steps=5, visuals=visuals)


def test_options_can_be_named_one_by_one_or_together():
    one_by_one = load_config(["experiment=smoke", *STACKED, "task.visuals.colour_jitter={strength: 0.1}"])
    together = load_config(["experiment=smoke", "task.visuals={grayscale: {}, frame_stack: {count: 2}}"])
    wanted = {"grayscale": {}, "frame_stack": {"count": 2}}
    assert list(together["task"]["visuals"].items()) == list(wanted.items())
    assert list(one_by_one["task"]["visuals"]) == [*wanted, "colour_jitter"]
    assert load_config([])["task"]["visuals"] == {} and load_config([])["evaluation"]["visuals"] is None


def test_a_saved_configuration_takes_options_and_loses_them():
    saved = load_config(["experiment=smoke", *STACKED])
    other = override_saved(saved, ["evaluation.visuals={background: {}}"])
    assert other["evaluation"]["visuals"] == {"background": {}} and other["task"] == saved["task"]
    assert override_saved(other, ["evaluation.visuals={}"])["evaluation"]["visuals"] == {}
    del saved["task"]["visuals"]  # as runs from before there were any
    assert override_saved(saved, STACKED)["task"]["visuals"] == {"grayscale": {}, "frame_stack": {"count": 2}}


@pytest.mark.parametrize("override", ["evaluation.visuals=1", "task.visuals.grayscale=true"])
def test_what_are_no_options_is_refused(override):
    with pytest.raises(BadConfig, match=r"visuals: expected visual options by name"):
        check(load_config([override]))


def test_evaluation_may_see_other_frames_of_the_same_shape():
    config = load_config(["experiment=smoke", "evaluation.visuals={colour_jitter: {}, background: {}}"])
    with open_pool(config, 1) as pool, open_evaluation_pool(config, 1) as other:
        assert pool.spec.visuals == {} and list(other.spec.visuals) == ["colour_jitter", "background"]
        require_evaluation(config, pool.spec)
        config["evaluation"]["visuals"] = {"grayscale": {}}
        with pytest.raises(ValueError, match=r"evaluation\.visuals: expected observed 3x16x16.*got 1x16x16"):
            require_evaluation(config, pool.spec)
        config["evaluation"]["visuals"] = None
        require_evaluation(config, spec_of(1))


def test_films_show_all_images_side_by_side_and_enlarge_the_smaller():
    front = torch.arange(2 * 3 * 4 * 6, dtype=torch.uint8).view(2, 3, 4, 6)
    wrist = torch.arange(2 * 3 * 2 * 2, dtype=torch.uint8).view(2, 3, 2, 2)
    both = side_by_side([front, wrist])
    assert both.shape == (2, 3, 4, 10) and both[..., :6].equal(front)
    assert both[..., 6:].equal(wrist.repeat_interleave(2, -1).repeat_interleave(2, -2))
    assert side_by_side([front]).equal(front)


def test_films_show_the_newest_image_in_colour():
    frames = torch.arange(2 * 12 * 4, dtype=torch.uint8).reshape(2, 12, 2, 2)
    rgb = newest_image(frames[:, :9], spec_of(9, frame_stack={"count": 3}))
    assert torch.equal(rgb, frames[:, 6:9])
    grey = newest_image(frames[:, :3], spec_of(3, grayscale={}, frame_stack={"count": 3}))
    assert torch.equal(grey, frames[:, 2:3].expand(-1, 3, -1, -1))
    both = newest_image(frames, spec_of(12, camera={"ids": [0, 1]}, frame_stack={"count": 2}))
    assert torch.equal(both, torch.cat([frames[:, 6:9], frames[:, 9:12]], dim=-1))
    grey_both = newest_image(frames[:, :2], spec_of(2, camera={"ids": [0, 1]}, grayscale={}))
    assert torch.equal(grey_both[:, 0], torch.cat([frames[:, 0], frames[:, 1]], dim=-1))


@pytest.fixture(scope="module")
def trained(runs, toy, tmp_path_factory):
    """A run on grey stacks whose evaluation has distractors in front of them."""
    folder = tmp_path_factory.mktemp("visuals") / "run"
    distracted = "evaluation.visuals={colour_jitter: {}, background: {}, grayscale: {}, frame_stack: {count: 2}}"
    run = runs.fit(*toy, *STACKED, distracted, "task.env_steps=40", "evaluation.final_episodes=1", f"run_dir={folder}")
    assert run.wait() == 0, run.err.read_text()
    return folder


def test_a_run_records_what_it_saw(trained):
    spec = json.loads((trained / "spec.json").read_text())
    assert spec["images"] == {"pixels": [2, 16, 16]}
    assert spec["visuals"] == {"grayscale": {}, "frame_stack": {"count": 2}}
    assert list(yaml.safe_load((trained / "config.yaml").read_text())["task"]["visuals"]) == [
        "grayscale",
        "frame_stack",
    ]
    assert (trained / "videos/evaluation_final.mp4").stat().st_size and (trained / "report.html").exists()


def test_a_checkpoint_is_evaluated_through_other_visuals(trained, runs, refused):
    run = runs.start("evaluate", f"checkpoint={trained}", "episodes=1", "evaluation.visuals=null")
    assert run.wait() == 0, run.err.read_text()
    assert run.results()["visuals"] == {"grayscale": {}, "frame_stack": {"count": 2}}
    line = refused(evaluate.main, f"checkpoint={trained}", "episodes=1", "evaluation.visuals={grayscale: {}}")
    assert "evaluation.visuals: expected observed 2x16x16 as in training, got 1x16x16" in line


def test_a_run_does_not_go_on_with_other_visuals(trained, refused):
    line = refused(fit.main, f"resume={trained}", "task.visuals.action_repeat.count=1", "task.env_steps=80")
    assert line.startswith("BadConfig: visuals: expected") and "task.visuals.action_repeat: expected None" in line
