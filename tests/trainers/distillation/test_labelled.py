import numpy as np
import pytest
import torch

from trainers.distillation.labelled import LabelledEpisode, LabelledEpisodes, LabelsDamaged, evenly, sample

A = 2


def episode(rows: int, number: int = 0) -> LabelledEpisode:
    """Row t shows 10 * number + t everywhere, and its label says the same; the last row has none."""
    values = 10 * number + np.arange(rows)
    mean = np.repeat(values[:, None], A, 1).astype(np.float32)
    mean[-1] = np.nan
    pixels = np.broadcast_to(values.astype(np.uint8)[:, None, None, None], (rows, 3, 4, 4)).copy()
    return LabelledEpisode({"pixels": pixels}, np.zeros((rows, A), np.float32), mean, np.ones_like(mean))


def test_what_is_stored_comes_back(tmp_path):
    labels = LabelledEpisodes(tmp_path / "toy")
    for number in range(3):
        labels.add(episode(5, number))
    assert labels.decisions == 12
    again = LabelledEpisodes(tmp_path / "toy", count=3)
    for mine, theirs in zip(labels.episodes, again.episodes, strict=True):
        np.testing.assert_array_equal(mine.mean, theirs.mean)
        np.testing.assert_array_equal(mine.observation["pixels"], theirs.observation["pixels"])


def test_a_round_that_was_broken_off_is_written_over(tmp_path):
    labels = LabelledEpisodes(tmp_path)
    labels.add(episode(5, 0))
    labels.add(episode(5, 1))
    again = LabelledEpisodes(tmp_path, count=1)
    again.add(episode(7, 2))
    assert [len(e) for e in LabelledEpisodes(tmp_path, count=2).episodes] == [5, 7]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["000000.safetensors", "000001.safetensors"]


def test_a_file_that_is_cut_short_is_named(tmp_path):
    LabelledEpisodes(tmp_path).add(episode(5))
    path = tmp_path / "000000.safetensors"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(LabelsDamaged, match=r"000000\.safetensors"):
        LabelledEpisodes(tmp_path, count=1)
    path.unlink()
    with pytest.raises(LabelsDamaged, match="No such file"):
        LabelledEpisodes(tmp_path, count=1)


def test_what_is_held_out_is_never_learned_from(tmp_path):
    labels = LabelledEpisodes(tmp_path)
    labels.add(episode(5))
    assert labels.learned() == labels.held_out() == labels.episodes
    for number in range(1, 25):
        labels.add(episode(5, number))
    learned, held_out = ({id(e) for e in part} for part in (labels.learned(), labels.held_out()))
    assert not learned & held_out and (len(learned), len(held_out)) == (22, 3)


def test_windows_hold_rows_with_their_own_labels_and_none_beyond_an_end():
    episodes = [episode(9, 0), episode(4, 2)]
    seen = set()
    for seed in range(20):
        rows = sample(episodes, windows=8, length=5, rng=np.random.default_rng(seed))
        target = rows.target
        shown = rows.observation["pixels"][:, :, 0, 0, 0].float()
        labelled = target.mean.isfinite().all(-1)
        assert torch.equal(target.mean[labelled][:, 0], shown[labelled])
        assert torch.equal(rows.is_first[:, 0], (shown[:, 0] == 0) | (shown[:, 0] == 20))
        assert not rows.is_first[:, 1:].any()
        seen |= set(shown[labelled].int().tolist())
    assert seen == {*range(8), *range(20, 23)}


def test_every_row_of_every_episode_is_drawn_as_often():
    episodes = [episode(rows, number) for number, rows in ((0, 40), (5, 9), (7, 4))]
    rows = sample(episodes, windows=40_000, length=6, rng=np.random.default_rng(0))
    shown = rows.observation["pixels"][:, :, 0, 0, 0][rows.target.mean.isfinite().all(-1)].numpy()
    _, counts = np.unique(shown, return_counts=True)
    assert len(counts) == 39 + 8 + 3  # an episode's last row has no label
    np.testing.assert_allclose(counts / counts.mean(), 1, atol=0.1)


def test_held_out_windows_are_spread_evenly_and_the_same_every_time():
    episodes = [episode(13, 0), episode(13, 2)]
    batch = evenly(episodes, windows=100, length=4)
    assert batch.target.mean.isfinite().all(-1).sum() == 24
    few = evenly(episodes, windows=2, length=4)
    assert few.observation["pixels"][:, 0, 0, 0, 0].tolist() == [0, 28]
    assert torch.equal(evenly(episodes, windows=100, length=4).observation["pixels"], batch.observation["pixels"])
