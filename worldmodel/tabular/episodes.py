"""A learner in mazes, step by step: episode lengths, rewards, and when its policy became the shortest way."""

from collections.abc import Iterator, Mapping
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from worldmodel.tabular.dyna_q import DynaQ
from worldmodel.tabular.maze import Maze, Transition, path_length, shortest_path


def play(maze: Maze, learner: DynaQ, *, changes: Mapping[int, Maze] | None = None) -> Iterator[Transition]:
    """Real steps without end, each learned from before it is yielded; an episode's end is followed by a new start.

    changes: mazes of the same size by the number of real steps before them.
    """
    state, count = maze.start, 0
    while True:
        maze = (changes or {}).get(count, maze)
        transition = maze.step(state, learner.act(state))
        learner.learn(transition)
        state, count = transition.next_state if transition.continues else maze.start, count + 1
        yield transition


def steps_to_shortest(maze: Maze, learner: DynaQ, *, most: int) -> int:
    """Real steps until the greedy policy takes the shortest way from the start; `most` where that takes as many."""
    shortest, counts = shortest_path(maze), (count for count, _ in enumerate(play(maze, learner), start=1))
    return next(count for count in counts if count >= most or path_length(maze, learner.values) == shortest)


def episode_lengths(maze: Maze, learner: DynaQ, *, episodes: int) -> list[int]:
    """Real steps of each of the first episodes."""
    steps = enumerate(play(maze, learner), start=1)
    ends = islice((count for count, transition in steps if not transition.continues), episodes)
    return [int(length) for length in np.diff([0, *ends])]


def cumulative_reward(
    maze: Maze, learner: DynaQ, *, steps: int, changes: Mapping[int, Maze] | None = None
) -> NDArray[np.float64]:
    """The sum of rewards after each of the first real steps [steps]."""
    rewards = [transition.reward for transition in islice(play(maze, learner, changes=changes), steps)]
    return np.cumsum(rewards)
