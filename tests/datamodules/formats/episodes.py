"""Episodes for tests of formats: short, different in every row, with every flag."""

from collections.abc import Sequence

import numpy as np

from datamodules.formats.protocol import Reader
from datamodules.trajectory import Trajectory
from worldmodel.spec import EnvSpec

SPEC = EnvSpec(
    task="cartpole_swingup",
    images={"pixels": (3, 16, 16)},
    action_dim=2,
    action_repeat=2,
    episode_steps=30,
    look="fast",
)


def episode(rows: int, seed: int = 0, *, spec: EnvSpec = SPEC, terminal: bool = False) -> Trajectory:
    rng = np.random.default_rng(seed)
    action = rng.uniform(-1, 1, (rows, spec.action_dim)).astype(np.float32)
    action[1:2], action[2:3] = -1.0, 1.0
    reward = rng.normal(size=rows).astype(np.float32)
    steps = np.full(rows, spec.action_repeat, np.int32)
    action[0], reward[0], steps[0] = 0, 0, 0
    if rows > 1:
        steps[-1] = 1  # an episode may end within an action's repeats
    pixels = rng.integers(0, 256, (rows, *spec.pixels), np.uint8)
    return Trajectory({"pixels": pixels}, action, reward, terminal, steps, f"episode {seed}")


def some_episodes() -> list[Trajectory]:
    """Of 1, 2 and more rows, ending either way."""
    return [episode(rows, seed, terminal=seed % 2 == 1) for seed, rows in enumerate((7, 2, 1, 16, 12))]


def assert_same(got: Trajectory, expected: Trajectory) -> None:
    """Equal in every value and dtype; names may differ."""
    got.check()
    for key in ("pixels", "action", "reward", "env_steps"):
        one, two = getattr(got, key), getattr(expected, key)
        assert one.dtype == two.dtype and np.array_equal(one, two), key
    assert got.terminal == expected.terminal


def assert_holds(reader: Reader, expected: Sequence[Trajectory], *, spec: EnvSpec | None = SPEC) -> None:
    """The reader yields exactly these episodes, twice."""
    assert len(reader) == len(expected) and (spec is None or reader.spec == spec)
    for _ in range(2):
        for got, wanted in zip(reader.trajectories(), expected, strict=True):
            assert_same(got, wanted)
        assert reader.problems == []
    reader.close()
