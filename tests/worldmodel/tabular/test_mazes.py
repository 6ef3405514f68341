"""Mazes and the values that are exact in them."""

import numpy as np
import pytest

from worldmodel.tabular.maze import BOTH_GAPS, DYNA_MAZE, LEFT_GAP, Maze, Transition, path_length, shortest_path
from worldmodel.tabular.model import TabularModel, true_model, value_iteration


def test_walls_and_edges_stop_and_the_goal_ends() -> None:
    maze = Maze("S#\n.G")
    assert maze.step(0, 0) == (0, 0, 0.0, 0, 1.0) and maze.step(0, 3) == (0, 3, 0.0, 0, 1.0)
    assert maze.step(0, 1).next_state == 2 and maze.step(2, 3) == (2, 3, 1.0, 3, 0.0)
    assert maze.free() == [0, 2]


@pytest.mark.parametrize(("picture", "steps"), [(DYNA_MAZE, 14), (LEFT_GAP, 16), (BOTH_GAPS, 10)])
def test_shortest_ways_are_those_of_the_book(picture: str, steps: int) -> None:
    maze = Maze(picture)
    assert shortest_path(maze) == steps
    values = value_iteration(true_model(maze), discount=0.95)
    assert path_length(maze, values) == steps
    assert values[maze.start].max() == pytest.approx(0.95 ** (steps - 1), abs=1e-8)


def test_a_larger_maze_has_the_same_ways() -> None:
    assert [shortest_path(Maze(DYNA_MAZE).enlarged(factor)) for factor in (1, 2, 3)] == [14, 28, 42]


@pytest.mark.parametrize("picture", ["S.", "S.G\n..", "SxG", "SSG"])
def test_pictures_that_are_no_maze(picture: str) -> None:
    with pytest.raises(ValueError, match="picture: expected"):
        Maze(picture)
    with pytest.raises(ValueError, match="a way from S to G"):
        shortest_path(Maze("S#G"))


def test_counts_estimate_the_expectation() -> None:
    """Algorithm 28, line 7: r + γ max Q is averaged over what followed, an end included."""
    model, best = TabularModel(3, 1, rate=0.0), np.array([1.0, 2.0, 4.0])
    outcomes = [(0.0, 1, 1.0), (3.0, 2, 1.0), (6.0, 0, 0.0), (3.0, 1, 1.0)]
    for reward, after, continues in outcomes:
        model.learn(Transition(0, 0, reward, after, continues))
    assert model.target(0, 0, best, 0.5) == pytest.approx(3.0 + 0.5 * (2 + 4 + 0 + 2) / 4)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.1])
def test_a_biased_model_misses_the_values_by_no_more_than_its_bias_allows(share: float) -> None:
    """|Q' - Q| <= 2 γ ε V_max / (1 - γ)², ε the mass of p(s' | s, a) that is elsewhere."""
    maze, discount = Maze(DYNA_MAZE), 0.9
    exact, biased = true_model(maze), true_model(maze)
    tried = exact.seen > 0
    biased.follow[tried] = (1 - share) * exact.follow[tried] + share * np.eye(maze.states)[maze.start]
    found, right = (value_iteration(model, discount=discount) for model in (biased, exact))
    missed = np.abs(found - right).max()
    assert missed <= 2 * discount * share * right.max() / (1 - discount) ** 2
    assert (missed > 0) == (share > 0)
