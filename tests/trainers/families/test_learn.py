import json

from trainers.families.learn import learn

FINISHED = {
    **{"status": "finished", "updates": 40, "held_out": {"reward": 0.5, "reward_15": 1.5}},
    **{"time": {"update": 2.0}, "return_mean": 300.0, "returns": [200.0, 400.0]},
}


def test_what_is_finished_is_read_and_not_learned_again(tmp_path):
    (tmp_path / "results.json").write_text(json.dumps(FINISHED))
    row = learn("gaussian", tmp_path, ["data.uri=nowhere"], updates=40, episodes=2)
    assert (row["family"], row["updates"], row["return"], row["update_ms"]) == ("gaussian", 40, 300.0, 50.0)
    assert row["reward_15"] == 1.5 and row["reward_5"] is None  # episodes too short to look so far
