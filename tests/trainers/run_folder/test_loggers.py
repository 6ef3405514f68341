import io
import json
import struct

import av
import numpy as np
import pytest
import yaml

from trainers.command.configuration import BadConfig, load_config
from trainers.run_folder import loggers
from trainers.run_folder.metrics import CSVMetrics
from trainers.run_folder.paths import RunPaths
from trainers.run_folder.read_metrics import read_metrics

BLOCK = 32768
KEY = "0123456789abcdef0123456789abcdef01234567"
# tests never go online: the network is a port where nobody answers, and a wait for it would fail the time limit
NOWHERE = {"WANDB_BASE_URL": "http://127.0.0.1:9", "WANDB_MODE": "", "NETRC": "/nonexistent", "HOME": "/nonexistent"}


def history(folder):
    """Rows that an offline run holds for upload."""
    from wandb.proto import wandb_internal_pb2

    rows = []
    for path in sorted((folder / "wandb").glob("offline-run-*/run-*.wandb")):
        for data in records(path.read_bytes()):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(data)
            if record.WhichOneof("record_type") == "history":
                rows.append({"/".join(i.nested_key) or i.key: json.loads(i.value_json) for i in record.history.item})
    return rows


def records(data):
    """Records of a LevelDB log behind seven bytes of its own: blocks of 32 KiB, pieces of checksum, length and kind."""
    place, parts = 7, b""
    while place < len(data):
        if BLOCK - place % BLOCK < 7:
            place += BLOCK - place % BLOCK
            continue
        length, kind = struct.unpack_from("<HB", data, place + 4)
        parts += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):
            yield parts
            parts = b""


@pytest.fixture(scope="module")
def offline(runs, toy, tmp_path_factory):
    """A run without a key, and its continuation with one that must not be written anywhere."""
    folder = tmp_path_factory.mktemp("wandb") / "run"
    run = runs.fit(*toy, f"run_dir={folder}", "logger=wandb", **NOWHERE)
    assert run.wait() == 0, run.err.read_text()
    environ = {**NOWHERE, "WANDB_MODE": "offline", "WANDB_API_KEY": KEY}
    resumed = runs.fit(f"resume={folder}", "task.env_steps=140", **environ)
    assert resumed.wait() == 0, resumed.err.read_text()
    return run, folder


def test_offline_without_a_key(offline):
    run, folder = offline
    assert run.results()["status"] == "finished"
    parts = sorted((folder / "wandb").glob("offline-run-*"))
    identity = (folder / "wandb_id.txt").read_text()
    assert len(parts) == 2 and all(part.name.endswith(identity) for part in parts)
    assert "Error" not in run.err.read_text()


def test_curves_are_over_env_steps(offline):
    rows = history(offline[1])
    curve = [row for row in rows if "eval/return_mean" in row]
    assert [row["env_steps"] for row in curve] == [40, 80, 120, 140]
    columns = read_metrics(offline[1] / "metrics.csv")
    returns = columns["eval/return_mean"][np.isfinite(columns["eval/return_mean"])]
    np.testing.assert_allclose([row["eval/return_mean"] for row in curve], returns, rtol=1e-6)
    assert all("env_steps" in row for row in rows)


def test_films_are_mp4(offline):
    films = [row for row in history(offline[1]) if any(key.startswith("video/") for key in row)]
    assert [row["env_steps"] for row in films] == [40, 80, 120, 140]
    for row in films:
        assert {key.rpartition("/")[0] for key in row if key.startswith("video/")} == {
            "video/evaluation",
            "video/open_loop",
        }
    files = list((offline[1] / "wandb").rglob("*.mp4"))
    assert len(files) == 8
    with av.open(io.BytesIO(files[0].read_bytes())) as film:
        assert film.streams.video[0].frames > 1


def test_no_key_in_any_file(offline):
    files = [path for path in offline[1].rglob("*") if path.is_file()]
    assert len(files) > 20
    assert not [path for path in files if KEY.encode() in path.read_bytes()]
    assert yaml.safe_load((offline[1] / "config.yaml").read_text())["logger"]["name"] == "wandb"


def test_tensorboard(runs, toy, tmp_path):
    pytest.importorskip("tensorboard")
    run = runs.fit(*toy, f"run_dir={tmp_path / 'run'}", "logger=tensorboard", "task.env_steps=40")
    assert run.wait() == 0, run.err.read_text()
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (events,) = (tmp_path / "run" / "tensorboard").glob("events.out.tfevents.*")
    reader = EventAccumulator(str(events))
    reader.Reload()
    (point,) = reader.Scalars("eval/return_mean")
    assert point.step == 40 and point.value == pytest.approx(run.results()["return_mean"], rel=1e-5)


@pytest.mark.parametrize(
    ("environ", "option", "mode"),
    [
        ({}, None, "offline"),
        ({"WANDB_API_KEY": KEY}, None, "online"),
        ({"WANDB_API_KEY": KEY}, True, "offline"),
        ({"WANDB_API_KEY": KEY, "WANDB_MODE": "offline"}, None, "offline"),
        ({"WANDB_API_KEY": KEY, "WANDB_MODE": "dryrun"}, None, "offline"),
        ({"WANDB_MODE": "online"}, None, "online"),
        ({"WANDB_MODE": "run"}, None, "online"),
        ({"WANDB_MODE": "Shared"}, None, "shared"),
        ({"WANDB_MODE": "offline"}, False, "online"),
        ({"WANDB_MODE": "disabled"}, None, "disabled"),
        ({"WANDB_MODE": "disabled", "WANDB_API_KEY": KEY}, False, "disabled"),
        ({"WANDB_DISABLED": "true", "WANDB_API_KEY": KEY}, None, "disabled"),
    ],
)
def test_the_mode_is_decided_before_the_start(monkeypatch, tmp_path, environ, option, mode):
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_PROJECT", "WANDB_DISABLED"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    monkeypatch.setenv("HOME", str(tmp_path))
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    assert loggers.wandb_mode(option) == mode


def test_a_mode_that_wandb_does_not_know_is_refused(monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "sideways")
    with pytest.raises(BadConfig, match=r"WANDB_MODE: expected .*disabled.*, got 'sideways'"):
        loggers.wandb_mode(None)


def test_disabled_needs_no_key_and_logs_nothing(monkeypatch, tmp_path):
    monkeypatch.setenv("WANDB_MODE", "disabled")
    config = load_config(["experiment=smoke", "logger=wandb"])
    csv = CSVMetrics(run_dir=tmp_path)
    assert loggers.build_loggers(config, RunPaths(tmp_path), csv, rank=0, axis="env_steps") == [csv]
    assert not any(tmp_path.iterdir())
