import numpy as np
import pytest
import torch

from trainers.run_folder.metrics import CSVMetrics
from trainers.run_folder.read_metrics import read_metrics

ROW = {"env_steps": 10, "decisions": 5, "updates": 2, "seconds": 0.5}


def _write(folder, count=3):
    log = CSVMetrics(run_dir=folder)
    for index in range(count):
        log.log_metrics({**{key: value * index for key, value in ROW.items()}, "loss/kl": index / 3})
    log.finalize("success")
    return log


def test_rows_come_back(tmp_path):
    found = read_metrics(_write(tmp_path).path)
    np.testing.assert_allclose(found["env_steps"], [0, 10, 20])
    np.testing.assert_allclose(found["loss/kl"], [0, 1 / 3, 2 / 3], rtol=1e-8)


def test_columns_grow_and_missing_is_nan(tmp_path):
    log = _write(tmp_path, count=1)
    log.log_metrics({**ROW, "eval/return_mean": torch.tensor(7.5)})
    found = read_metrics(log.path)
    np.testing.assert_array_equal(found["eval/return_mean"], [np.nan, 7.5])
    np.testing.assert_array_equal(found["loss/kl"], [0, np.nan])
    assert list(tmp_path.iterdir()) == [log.path]


def test_counters_repeat_where_a_call_leaves_them_out(tmp_path):
    log = CSVMetrics(run_dir=tmp_path)
    log.log_metrics(ROW)
    log.log_metrics({"x": 1.0, "updates": 3})
    found = read_metrics(log.path)
    assert [found[key][1] for key in ROW] == [10, 5, 3, 0.5]


def test_every_row_is_on_disk_at_once(tmp_path):
    log = CSVMetrics(run_dir=tmp_path)
    for count in range(1, 4):
        log.log_metrics(ROW)
        assert len(read_metrics(log.path)["updates"]) == count


def test_a_file_cut_at_any_byte_opens_with_its_whole_rows(tmp_path):
    whole = _write(tmp_path / "whole").path.read_bytes()
    for cut in range(len(whole)):
        path = tmp_path / "metrics.csv"
        path.write_bytes(whole[:cut])
        log = CSVMetrics(run_dir=tmp_path)
        log.log_metrics({**ROW, "loss/kl": 9.0})
        log.finalize("success")
        expected = max(whole[:cut].count(b"\n") - 1, 0)
        found = read_metrics(path)
        np.testing.assert_allclose(found["env_steps"], [*(10 * index for index in range(expected)), 10])
        assert found["loss/kl"][-1] == 9.0


def test_rewind_drops_what_will_be_done_again(tmp_path):
    log = _write(tmp_path, count=5)
    log.rewind(updates=4)
    np.testing.assert_array_equal(read_metrics(log.path)["updates"], [0, 2, 4])
    log.log_metrics({**ROW, "updates": 6})
    np.testing.assert_array_equal(read_metrics(log.path)["updates"], [0, 2, 4, 6])
    log.rewind(updates=100, env_steps=10)
    np.testing.assert_array_equal(read_metrics(log.path)["env_steps"], [0, 10, 10])


def test_what_is_no_number_is_refused_by_name(tmp_path):
    with pytest.raises(TypeError, match=r"'note'.*str 'high'"):
        CSVMetrics(run_dir=tmp_path).log_metrics({**ROW, "note": "high"})
    with pytest.raises(TypeError, match=r"'both'.*Tensor"):
        CSVMetrics(run_dir=tmp_path).log_metrics({**ROW, "both": torch.zeros(2)})


def test_no_file_reads_as_no_columns(tmp_path):
    assert read_metrics(tmp_path / "metrics.csv") == {}
