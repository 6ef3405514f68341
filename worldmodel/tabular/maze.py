"""Mazes with few enough states for tables: the smallest world in which Dyna's planning can be watched."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

MOVES = ((-1, 0), (1, 0), (0, -1), (0, 1))  # up, down, left, right

# Sutton and Barto (2018), figures 8.2 and 8.5: # walls, S the start, G the goal
DYNA_MAZE = """
.......#G
..#....#.
S.#....#.
..#......
.....#...
.........
"""
LEFT_GAP = """
........G
.........
.........
.########
.........
...S.....
"""
BOTH_GAPS = LEFT_GAP.replace(".########", ".#######.")


class Transition(NamedTuple):
    """One real step: what action `action` in state `state` led to; `continues` is 0 where the episode ends."""

    state: int
    action: int
    reward: float
    next_state: int
    continues: float


class Maze:
    """Four moves over the free cells of a grid; a move into a wall stays, the goal gives 1 and ends the episode.

    States are the cells' numbers, row by row, walls included.

    Args:
        picture: rows of `.` and `#` with one `S` and one `G`.

    Raises:
        ValueError: for any other picture.
    """

    actions = len(MOVES)

    def __init__(self, picture: str) -> None:
        self._rows = picture.split()
        flat = "".join(self._rows)
        widths = {len(row) for row in self._rows}
        if len(widths) != 1 or flat.count("S") != 1 or flat.count("G") != 1 or set(flat) - set(".#SG"):
            raise ValueError(f"picture: expected equal rows of . and # with one S and one G, got {picture!r}")
        self.states, self._width = len(flat), widths.pop()
        self.start, self.goal = flat.index("S"), flat.index("G")

    def step(self, state: int, action: int) -> Transition:
        """The transition that an action makes."""
        row, column = divmod(state, self._width)
        down, right = MOVES[action]
        row, column = row + down, column + right
        inside = 0 <= row < len(self._rows) and 0 <= column < self._width
        after = row * self._width + column if inside and self._rows[row][column] != "#" else state
        return Transition(state, action, float(after == self.goal), after, float(after != self.goal))

    def free(self) -> list[int]:
        """The states that an episode can be in: neither walls nor the goal."""
        return [number for number, cell in enumerate("".join(self._rows)) if cell in ".S"]

    def enlarged(self, factor: int) -> "Maze":
        """The same maze with every cell a square of factor x factor cells, the start and goal at their corners."""
        marks = {"S": self.start, "G": self.goal}
        plain = [row.replace("S", ".").replace("G", ".") for row in self._rows]
        cells = [list("".join(cell * factor for cell in row)) for row in plain for _ in range(factor)]
        for mark, state in marks.items():
            row, column = divmod(state, self._width)
            cells[row * factor][column * factor] = mark
        return Maze("\n".join(map("".join, cells)))


def path_length(maze: Maze, values: NDArray[np.float64], *, most: int = 10_000) -> int:
    """Steps from start to goal of the policy that is greedy in values [S A]; `most` where it gets there later."""
    state, steps = maze.start, 0
    while state != maze.goal and steps < min(most, maze.states):  # a longer way visits a state twice
        state, steps = maze.step(state, int(values[state].argmax())).next_state, steps + 1
    return steps if state == maze.goal else most


def shortest_path(maze: Maze) -> int:
    """Steps of the shortest way from start to goal, by breadth-first search.

    Raises:
        ValueError: where there is none.
    """
    seen, edge, steps = {maze.start}, {maze.start}, 0
    while edge and maze.goal not in seen:
        edge = {maze.step(state, action).next_state for state in edge for action in range(maze.actions)} - seen
        seen, steps = seen | edge, steps + 1
    if maze.goal not in seen:
        raise ValueError("picture: expected a way from S to G, got none")
    return steps
