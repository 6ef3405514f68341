import json

import pytest
import yaml

from trainers.benchmarks.models.measure import NEVER, learn, require_same
from trainers.command.configuration import BadConfig, load_config

FINISHED = {
    **{"status": "finished", "updates": 40, "held_out": {"reward": 0.5, "reward_15": 1.5}},
    **{"time": {"update": 2.0}, "return_mean": 300.0, "returns": [200.0, 400.0]},
}


def test_what_is_finished_is_read_and_not_learned_again(tmp_path):
    (tmp_path / "results.json").write_text(json.dumps(FINISHED))
    row = learn("gaussian", tmp_path, ["data.uri=nowhere"], updates=40, episodes=2)
    assert (row["dynamics"], row["updates"], row["return"], row["update_ms"]) == ("gaussian", 40, 300.0, 50.0)
    assert row["reward_15"] == 1.5 and row["reward_5"] is None  # episodes too short to look so far


ASKED = ["task=toy_point", "data=offline", "data.uri=segments:there"]


def store(folder, *others):
    config = load_config(["dynamics=gaussian", *ASKED, *NEVER, *others, f"run_dir={folder}", "data.updates=40"])
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    (folder / "results.json").write_text(json.dumps(FINISHED))


def test_a_run_with_the_same_settings_is_read_or_goes_on(tmp_path):
    require_same("gaussian", tmp_path, ASKED, updates=40, episodes=2)  # nothing is there
    store(tmp_path)
    require_same("gaussian", tmp_path, ASKED, updates=40, episodes=2)
    require_same("gaussian", tmp_path, ASKED, updates=60, episodes=5)


@pytest.mark.parametrize(
    ("made_with", "asked", "told"),
    [
        (["dynamics.latent_dim=32"], {}, "dynamics.latent_dim: expected 32 as in .*, got 64"),
        (["data.uri=segments:elsewhere"], {}, "data.uri: expected segments:elsewhere as in .*, got segments:there"),
        ([], {"updates": 30}, "updates: expected 40 as in .*, got 30"),
        ([], {"episodes": 5}, "episodes: expected 2 as in .*, got 5"),
    ],
)
def test_a_run_with_other_settings_is_refused_by_key(tmp_path, made_with, asked, told):
    store(tmp_path, *made_with)
    with pytest.raises(BadConfig, match=told):
        require_same("gaussian", tmp_path, ASKED, **{"updates": 40, "episodes": 2, **asked})
