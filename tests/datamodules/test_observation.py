"""Named images and vectors from an environment to a batch: every byte in its row, whatever the spec."""

import json
import os
import shutil
from dataclasses import replace

import numpy as np
import pytest

from datamodules.envs import counting
from datamodules.envs.checks import check_row
from datamodules.envs.errors import BadObservation
from datamodules.envs.pool import EnvPool
from datamodules.envs.protocol import Fault, Step
from datamodules.formats.segments import open_writer
from datamodules.observation import empty, image_bytes, join_images, misfit, split_images, split_vectors, vector_size
from datamodules.recorded import Recorded
from datamodules.replay import Replay
from datamodules.rollout import SmoothRandom, play
from datamodules.storage.folder import HEADER
from datamodules.storage.log_format import decode_json, encode_json
from datamodules.storage.rows import ReplayMismatch, ReplayRowInvalid, row_bytes
from datamodules.trajectory import Trajectory
from worldmodel.spec import EnvSpec

CAMERAS, VECTORS = {"front": 16, "side": 8}, {"clock": 3, "one": 1}
SPEC = EnvSpec(
    task="arm",
    images={"front": (3, 4, 6), "wrist": (1, 5, 3)},
    vectors={"pixels": 2, "action": 1},  # names of columns: vectors have columns of their own
    action_dim=2,
    action_repeat=1,
    episode_steps=50,
)


@pytest.fixture(autouse=True)
def fast_disk(monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda fd: None)


def expected(seed, time):
    """What the counting environment shows, in closed form."""
    images = {name: counting.encode(time, seed, side) for name, side in CAMERAS.items()}
    return images | {name: counting.encode_vector(time, seed, size) for name, size in VECTORS.items()}


def require_equal(got, want):
    assert list(got) == list(want)
    for name, values in want.items():
        assert np.asarray(got[name]).dtype == values.dtype, name
        np.testing.assert_array_equal(got[name], values, err_msg=name)


def observations(spec, rng, *rows):
    images = {name: rng.integers(0, 256, (*rows, *shape), np.uint8) for name, shape in spec.images.items()}
    return images | {name: rng.normal(size=(*rows, size)).astype(np.float32) for name, size in spec.vectors.items()}


def episode(spec, rng, rows):
    action = rng.uniform(-1, 1, (rows, spec.action_dim)).astype(np.float32)
    action[0] = 0
    reward = np.arange(rows, dtype=np.float32)
    steps = np.ones(rows, np.int32)
    return Trajectory(observations(spec, rng, rows), action, reward, False, steps, "x")


def random_spec(rng):
    images = {f"image {i}": tuple(int(n) for n in rng.integers(1, 9, 3)) for i in range(rng.integers(0, 4))}
    vectors = {f"v.{i}": int(rng.integers(1, 9)) for i in range(rng.integers(0 if images else 1, 4))}
    return replace(SPEC, images=images, vectors=vectors)


def test_workers_hand_on_every_image_and_vector_in_its_row(tmp_path):
    options = {"cameras": CAMERAS, "vectors": VECTORS, "episode_steps": 7}
    seeds, seen = {0: 5, 1: 300}, []

    class Watching(SmoothRandom):
        def __call__(self, observation, is_first, ready):
            seen.append({name: values.copy() for name, values in observation.items()})
            return super().__call__(observation, is_first, ready)

    with EnvPool(source="counting", kwargs=options, count=2) as pool:
        assert pool.spec.images == {"front": (3, 16, 16), "side": (3, 8, 8)} and pool.spec.vectors == VECTORS
        replay = Replay(spec=pool.spec, capacity=64, streams=2, folder=tmp_path / "own", flush_rows=3)
        policy = Watching(pool.spec, rngs=[np.random.default_rng(i) for i in range(2)])
        play(pool, policy, seeds, on_row=lambda i, step, action: replay.append(i, step, action))
        assert pool.render(0, 32).shape == (32, 32, 3)
    for time, observation in enumerate(seen):
        for i, seed in seeds.items():
            require_equal({name: values[i] for name, values in observation.items()}, expected(seed, time))
    # a process that ended here leaves this on disk
    shutil.copytree(tmp_path / "own", tmp_path / "crashed")
    replay.close()
    for folder in ("own", "crashed"):
        again = Replay(spec=pool.spec, capacity=64, streams=2, folder=tmp_path / folder)
        assert again.rows == 16 and again.damaged_blocks == 0
        batch = again.sample(100, 4)
        for window, (_, stream, first) in enumerate(batch.windows.tolist()):
            for row in range(4):
                got = {name: values[window, row].numpy() for name, values in batch.observation.items()}
                require_equal(got, expected(seeds[stream], first + row))
        again.close()
    recorded = Recorded(tmp_path / "own")
    for seed, trajectory in zip(seeds.values(), recorded.trajectories(), strict=True):
        for time in range(8):
            got = {name: values[time] for name, values in trajectory.observation.items()}
            require_equal(got, expected(seed, time))


@pytest.mark.parametrize(("fault", "text"), [("vector", "clock: expected finite"), ("names", "observation: expected")])
def test_a_vector_that_is_not_finite_or_a_missing_name_is_a_fault(fault, text):
    options = {"cameras": CAMERAS, "vectors": VECTORS, "fault": fault, "fault_at": 1, "fault_seed": 5}
    with EnvPool(source="counting", kwargs=options, count=1) as pool:
        pool.reset({0: 5})
        row = pool.step({0: np.zeros(2, np.float32)})[0]
    assert isinstance(row, Fault) and row.kind == "observation" and text in row.message


def test_an_environment_of_vectors_only_has_no_frames():
    with EnvPool(source="counting", kwargs={"cameras": {}, "vectors": VECTORS}, count=1) as pool:
        rows = [pool.reset({0: 9})[0], pool.step({0: np.zeros(2, np.float32)})[0]]
        for time, row in enumerate(rows):
            require_equal(row.observation, {n: counting.encode_vector(time, 9, size) for n, size in VECTORS.items()})


@pytest.mark.parametrize("seed", range(10))
def test_rows_of_any_spec_come_back_byte_for_byte(tmp_path, monkeypatch, seed):
    monkeypatch.setattr("datamodules.storage.budget.TAIL_BYTES", 0)
    rng = np.random.default_rng(seed)
    spec = random_spec(rng)
    flat = join_images(spec, whole := observations(spec, rng, 5), (5,))
    assert flat.shape == (5, image_bytes(spec)) and misfit(spec, {n: v[0] for n, v in whole.items()}) is None
    numbers = np.concatenate([np.empty((5, 0), np.float32), *(whole[n] for n in spec.vectors)], 1)
    assert numbers.shape[1] == vector_size(spec)
    require_equal(split_images(spec, flat) | split_vectors(spec, numbers), whole)
    episodes = [episode(spec, rng, int(rows)) for rows in rng.integers(3, 40, 6)]
    with open_writer(tmp_path / "recorded", spec) as writer:
        for one in episodes:
            writer.write(one)
    memory = row_bytes(spec) * 400
    replays = [
        Replay(spec=spec, capacity=400, folder=tmp_path / name, memory_limit_bytes=limit, flush_rows=5)
        for name, limit in (("memory", memory), ("mapped", memory - 1 if spec.images else memory))
    ]
    assert replays[1].budget.mapped == bool(spec.images)
    for one in episodes:
        for step, action in one.rows():
            for replay in replays:
                replay.append(0, step, action)
    recorded = Recorded(tmp_path / "recorded")
    assert not [*spec.differences(recorded.spec)]
    for one, other in zip(episodes, recorded.trajectories(), strict=True):
        require_equal(other.observation, one.observation)
    rows = {name: np.concatenate([one.observation[name] for one in episodes]) for name in empty(spec)}
    for source in (*replays, recorded):
        batch = source.sample(30, 3)
        first = batch.windows[:, 2].numpy()[:, None] + np.arange(3)
        require_equal(
            {name: values.numpy() for name, values in batch.observation.items()},
            {name: values[first] for name, values in rows.items()},
        )
        source.close()


def test_a_row_that_differs_from_the_spec_in_any_name_is_refused():
    rng = np.random.default_rng(0)
    good = observations(SPEC, rng)
    bad = [
        good | {"front": good["front"][:, :3]},
        good | {"wrist": good["wrist"].astype(np.float32)},
        good | {"pixels": good["pixels"].astype(np.float64)},
        good | {"pixels": good["pixels"] * np.nan},
        good | {"pixels": good["pixels"][:1]},
        good | {"more": good["pixels"]},
        {name: values for name, values in good.items() if name != "wrist"},
    ]
    replay, zero = Replay(spec=SPEC, capacity=10), np.zeros(2, np.float32)
    for observation in bad:
        step = Step(observation, 0.0, True, False, False, 0)
        with pytest.raises(ReplayRowInvalid, match="expected"):
            replay.append(0, step, zero)
        with pytest.raises(BadObservation, match="expected"):
            check_row(step, SPEC, opens=True)
    replay.append(0, Step(good, 0.0, True, False, False, 0), zero)


def test_other_names_or_another_order_are_another_folder(tmp_path):
    replay = Replay(spec=SPEC, capacity=10, folder=tmp_path)
    for step, action in episode(SPEC, np.random.default_rng(0), 6).rows():
        replay.append(0, step, action)
    replay.close()
    for spec in (
        replace(SPEC, images=dict(reversed(SPEC.images.items()))),
        replace(SPEC, vectors={}),
        replace(SPEC, images={**SPEC.images, "front": (3, 6, 4)}),
    ):
        with pytest.raises(ReplayMismatch, match="expected"):
            Replay(spec=spec, capacity=10, folder=tmp_path)
    Replay(spec=replace(SPEC, action_low=(0.0, 0.0), action_high=(1.0, 1.0)), capacity=10, folder=tmp_path).close()


def test_one_image_is_stored_as_before_and_folders_of_before_are_opened(tmp_path):
    spec = EnvSpec("old", {"pixels": (3, 4, 4)}, action_dim=2, action_repeat=1, episode_steps=9)
    rng = np.random.default_rng(0)
    one = episode(spec, rng, 6)
    replay = Replay(spec=spec, capacity=20, folder=tmp_path)
    for step, action in one.rows():
        replay.append(0, step, action)
    replay.close()
    flags = np.zeros((2, 6), np.bool_)
    flags[0, 0] = flags[1, 5] = True
    parts = (one.pixels, one.action, one.reward, flags[0], flags[1], np.zeros(6, np.bool_), one.env_steps)
    payload = b"".join(np.ascontiguousarray(part).tobytes() for part in parts)
    assert len(payload) == 6 * row_bytes(spec)
    assert payload in next((tmp_path / "stream_00").glob("segment_*.bin")).read_bytes()
    # the header as it was written when an observation was one image
    header = decode_json((tmp_path / HEADER).read_bytes())
    known = ("task", "action_dim", "action_repeat", "episode_steps", "look", "backend", "discrete", "visuals")
    old = {key: header["spec"][key] for key in known} | {"pixels": [3, 4, 4]}
    (tmp_path / HEADER).write_bytes(encode_json({**header, "spec": old}))
    assert json.loads((tmp_path / HEADER).read_bytes())["spec"]["pixels"] == [3, 4, 4]
    for source in (Recorded(tmp_path), Replay(spec=spec, capacity=20, folder=tmp_path)):
        assert source.rows == 6 and np.array_equal(source.sample(1, 6).pixels[0], one.pixels)
        source.close()
