from trainers.run_folder import find
from trainers.run_folder.find import newest_run
from trainers.run_folder.paths import RunPaths


def test_the_newest_run_of_a_seed_that_nobody_trains_in(monkeypatch, tmp_path):
    of = {"data": "online"}
    assert newest_run(tmp_path / "none", seed=0, **of) is None
    for name, seed in (("20260101-000000-a", 0), ("20260103-000000-b", 1), ("20260102-000000-c", 0)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.yaml").write_text(str(seed))
    (tmp_path / "20260104-000000-d").mkdir()  # no run
    monkeypatch.setattr(find, "read_yaml", lambda path: {"seed": int(path.read_text()), "data": {"name": "online"}})
    assert newest_run(tmp_path, seed=0, **of) == tmp_path / "20260102-000000-c"
    lock = RunPaths(tmp_path / "20260102-000000-c").lock()
    assert lock and newest_run(tmp_path, seed=0, **of) == tmp_path / "20260101-000000-a"
    assert newest_run(tmp_path, seed=2, **of) is None
    assert newest_run(tmp_path, seed=0, data="offline") is None
