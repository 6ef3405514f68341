"""Pixel point-mass that needs no OpenGL: steer a red dot onto a green one; the optimum has a closed form."""

import numpy as np
from numpy.typing import NDArray

from datamodules.envs.checks import checked_action, require_bool, require_open, require_whole
from datamodules.envs.errors import BadOption
from datamodules.envs.protocol import Step
from worldmodel.limits import wrong_number
from worldmodel.spec import EnvSpec

TASK = "toy_point"
# the goal keeps clear of the walls, so a straight way to it is never clipped
GOAL_EXTENT = 0.8
# arena [-1, 1] is drawn inside this part of the image, so a dot at a wall is still whole
DRAWN_EXTENT = 0.84
FIXED_GOAL = (0.3, -0.4)


def start(seed: int, *, random_goal: bool = True) -> NDArray[np.float64]:
    """The start state of an episode, [4] = dot x, y, goal x, y in [-1, 1]."""
    generator = np.random.default_rng(seed)
    dot, goal = generator.uniform(-1.0, 1.0, 2), generator.uniform(-GOAL_EXTENT, GOAL_EXTENT, 2)
    return np.concatenate([dot, goal if random_goal else np.asarray(FIXED_GOAL)])


def reward_at(distance: float | NDArray[np.float64]) -> NDArray[np.float64]:
    """Reward in [0, 1] of one control step that ends `distance` from the goal: 1 on it, 0.5 at half a unit."""
    return np.asarray(1.0 / (1.0 + (np.asarray(distance) / 0.5) ** 2))


def optimal_return(seed: int, *, episode_steps: int = 100, speed: float = 0.1, random_goal: bool = True) -> float:
    """The highest return of an episode: axes are independent, and every step minimises both distances at once.

    Exact for action_repeat 1; with a larger repeat an upper bound, since an action cannot change between control steps.
    """
    state = start(seed, random_goal=random_goal)
    times = np.arange(1, episode_steps + 1)[:, None]
    left = np.maximum(np.abs(state[2:] - state[:2]) - speed * times, 0.0)
    return float(reward_at(np.hypot(left[:, 0], left[:, 1])).sum())


class PointEnv:
    """Point-mass with velocity control and [3, size, size] frames; `state` is [4] = dot x, y, goal x, y.

    speed: arena units (of 2) per control step. random_goal: a new goal in every episode, else always FIXED_GOAL: two
    dimensions to learn instead of four. Raises BadOption when an argument is out of range.
    """

    def __init__(
        self,
        *,
        task: str = TASK,
        size: int = 64,
        action_repeat: int = 1,
        episode_steps: int = 100,
        speed: float = 0.1,
        random_goal: bool = True,
    ) -> None:
        if task != TASK:
            raise BadOption(f"expected {TASK!r}, got {task!r}", key="task")
        require_whole("size", size, least=16, most=64)
        require_whole("action_repeat", action_repeat, least=1)
        require_whole("episode_steps", episode_steps, least=1)
        if wrong := wrong_number(speed, above=0, most=1):
            raise BadOption(wrong, key="speed")
        require_bool("random_goal", random_goal)
        self.spec = EnvSpec(
            task=TASK,
            images={"pixels": (3, size, size)},
            action_dim=2,
            action_repeat=action_repeat,
            episode_steps=episode_steps,
            terminates=False,
        )
        self.speed, self.random_goal = speed, random_goal
        self.state = start(0)
        self._control_steps, self._open = 0, False
        self._grid = {size: _grid(size)}

    def reset(self, seed: int) -> Step:
        self.state = start(seed, random_goal=self.random_goal)
        self._control_steps, self._open = 0, True
        return Step({"pixels": self._pixels()}, 0.0, is_first=True, is_last=False, is_terminal=False, env_steps=0)

    def step(self, action: NDArray[np.floating]) -> Step:
        """Move with velocity `action` [2] for action_repeat control steps; raises BadAction, NotReset."""
        require_open(self._open)
        # python floats: a float32 step would drift from the closed form, and numpy scalars are slow
        move = [self.speed * value for value in checked_action(action, action_dim=2).tolist()]
        repeat = min(self.spec.action_repeat, self.spec.episode_steps - self._control_steps)
        x, y, goal_x, goal_y = self.state.tolist()
        reward = 0.0
        for _ in range(repeat):
            x, y = min(max(x + move[0], -1.0), 1.0), min(max(y + move[1], -1.0), 1.0)
            reward += 1.0 / (1.0 + 4.0 * ((x - goal_x) ** 2 + (y - goal_y) ** 2))
        self.state[:2] = x, y
        self._control_steps += repeat
        last = self._control_steps >= self.spec.episode_steps
        self._open = not last
        return Step(
            {"pixels": self._pixels()}, reward, is_first=False, is_last=last, is_terminal=False, env_steps=repeat
        )

    def render(self, size: int) -> NDArray[np.uint8]:
        return np.ascontiguousarray(_draw(self.state, self._grid.setdefault(size, _grid(size))).transpose(1, 2, 0))

    def background_mask(self, image: str = "pixels") -> NDArray[np.bool_]:
        """Where the present frame shows neither dot, [1, h, w]."""
        return (self._pixels()[None, :2] == 0).all(axis=1)

    def state_fingerprint(self) -> bytes:
        """The state in steps of 0.05 units."""
        return np.rint(self.state * 20).astype(np.int64).tobytes()

    def close(self) -> None:
        """Nothing is held open."""

    def _pixels(self) -> NDArray[np.uint8]:
        return _draw(self.state, self._grid[self.spec.pixels[1]])


def _grid(size: int) -> NDArray[np.float32]:
    # pixel centres in arena units
    return (((np.arange(size) + 0.5) * 2.0 / size - 1.0) / DRAWN_EXTENT).astype(np.float32)


def _draw(state: NDArray[np.float64], grid: NDArray[np.float32]) -> NDArray[np.uint8]:
    # bells of 0.13 units: their flanks put the position into many grey levels, well below one pixel
    offsets = grid - state[:, None].astype(np.float32)
    bells = np.exp(offsets * offsets * np.float32(-0.5 / 0.13**2)).reshape(2, 2, grid.size)
    frame = np.empty((3, grid.size, grid.size), np.uint8)
    # row 0 is the top of the image, where y is largest
    np.multiply(bells[:, 1, ::-1, None] * np.float32(255.0), bells[:, :1], out=frame[:2], casting="unsafe")
    frame[2] = 40
    return frame


make = PointEnv
