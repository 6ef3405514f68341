import json

import pytest

from trainers.command.configuration import override_saved
from trainers.run_folder.conversion import (
    FORMAT,
    FormatUnknown,
    convert_checkpoint,
    convert_config,
    convert_spec,
    convert_sweep,
)
from trainers.run_folder.read import read_run
from worldmodel.spec import EnvSpec

OLD_CONFIG = {
    "agent": {"name": "latent_mpc", "decode_fraction": 0.5, "heads": {"hidden": 7}},
    "data": {"envs": 2},
    "seed": 3,
}


@pytest.mark.parametrize("name", ["Algorithm26", "Offline", "Imagined", "Ladder", "loop"])
def test_a_loop_of_any_kind_has_one_key(name):
    old = {"callbacks": {name: {"updates": 5}, "other": 1}, "state_dict": {}}
    assert convert_checkpoint(old, path="x")["callbacks"] == {"loop": {"updates": 5}, "other": 1}
    assert list(old["callbacks"]) == [name, "other"]


def test_a_configuration_gets_what_it_left_open():
    converted = convert_config(OLD_CONFIG, path="x")
    added = {"pool": "local", "across_episodes": False, "base_std": 0.8, "damage_limit": 0.05}
    assert converted["data"] == {"name": "online", "envs": 2, **added}
    assert converted["seed"] == 3
    assert converted["objective"] == {"name": "reconstruction", "decode_fraction": 0.5}
    noise = {"explore_pink": 0.0, "explore_silent": 0.0, "explore_random": 0.0, "random_shift": 0}
    plans = {"replan": 1, "plan_precision": "float32", "continuation": False}
    assert converted["agent"] == {"name": "latent_mpc", "heads": {"name": "scalar", "hidden": 7}, **noise, **plans}
    assert OLD_CONFIG["agent"]["decode_fraction"] == 0.5


def test_keys_that_came_later_can_be_set_in_runs_of_then():
    saved = convert_config({"format": FORMAT, "trainer": {"devices": 1}, "data": {"name": "offline"}}, path="x")
    changed = override_saved(saved, ["trainer.rank_timeout_s=900", "data.across_episodes=true"])
    assert changed["trainer"] == {"rank_timeout_s": 900, "cuda_graphs": False, "devices": 1}
    kept = {"actions": None, "damage_limit": 0.05, "left_out_limit": 1.0}
    assert changed["data"] == {"across_episodes": True, "name": "offline", **kept}


def test_controllers_were_called_starts():
    guided, backprop = ({"name": name, "starts": 64, "horizon": 6} for name in ("gps", "backprop"))
    assert convert_config({"policy": guided}, path="x")["policy"] == {"name": "gps", "controllers": 64, "horizon": 6}
    assert convert_config({"policy": backprop}, path="x")["policy"] == backprop and guided["starts"] == 64


def test_todays_form_stays_as_it_is():
    assert convert_config({"format": FORMAT, "agent": {"heads": {}}}, path="x") == {"agent": {"heads": {}}}
    today = {"format": FORMAT, "callbacks": {"Offline": 1}}
    assert convert_checkpoint(today, path="x") == today


@pytest.mark.parametrize("version", [FORMAT + 1, 0, "2", None, True])
def test_a_later_version_is_refused_in_one_sentence(version):
    for convert in (convert_config, convert_checkpoint):
        with pytest.raises(FormatUnknown, match=rf"^runs/x: expected a run of format {FORMAT} or earlier, got"):
            convert({"format": version}, path="runs/x")


def test_a_spec_of_then_loads():
    fields = {"task": "x", "pixels": [3, 16, 16], "action_dim": 2, "action_repeat": 1, "episode_steps": 50}
    spec = EnvSpec.from_json(convert_spec({**fields, "renderer": "llvmpipe"}))
    assert spec.pixels == (3, 16, 16) and EnvSpec.from_json(spec.to_json()) == spec


def test_records_of_then_are_read_as_of_now(tmp_path):
    fields = {"task": "x", "pixels": [3, 16, 16], "renderer": "llvmpipe"}
    for name, content in {"spec": fields, "versions": {"torch": "2"}, "results": {"student_return": 5.0}}.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    run = read_run(tmp_path)
    assert run.spec == {"task": "x", "images": {"pixels": [3, 16, 16]}}
    assert run.versions == {"torch": "2", "renderer": "llvmpipe"} and run.results["return_mean"] == 5.0
    (tmp_path / "results.json").write_text(json.dumps({"student_return": 5.0, "return_mean": 6.0}))
    assert read_run(tmp_path).results["return_mean"] == 6.0
    assert convert_sweep({"runs": []}) == {"runs": [], "options": {}}
    assert convert_sweep({"options": {"jobs": 2}}) == {"options": {"jobs": 2}}


def test_ranks_of_then_were_the_first_generation():
    old = {"callbacks": {"loop": {"ranks": [1]}}}
    assert convert_checkpoint(old, path="x")["callbacks"]["loop"] == {"generation": 0, "ranks": [1]}
    now = {"callbacks": {"loop": {"ranks": [1], "generation": 2}}}
    assert convert_checkpoint(now, path="x")["callbacks"]["loop"]["generation"] == 2


def test_an_actor_of_then_is_part_of_its_learner():
    weights = {"agent.actor.net.0.weight": 1, "agent.imagination.slow_value.module.x": 2, "agent.reward.net.0.bias": 3}
    converted = convert_checkpoint({"format": 2, "state_dict": weights}, path="x")["state_dict"]
    assert converted == {
        "agent.policy.actor.net.0.weight": 1,
        "agent.policy.slow_value.module.x": 2,
        "agent.reward.net.0.bias": 3,
    }
