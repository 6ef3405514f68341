"""Seeds of episodes: a stream of its own for everybody who plays some."""

from enum import IntEnum

import numpy as np


class SeedRank(IntEnum):
    """Who stands in the place of a rank where it is no rank that trains: no two of them share an episode."""

    EVALUATION = 2**31
    RECORDING = 2**31 + 1
    DISTILLATION = 2**31 + 2
    START = 2**31 + 3  # of a worker, which proves by an episode that it draws


def episode_seed(run_seed: int, rank: int, index: int, episode: int) -> int:
    """The seed in [0, 2**32) of one episode, a pure function, so a resumed run continues the same stream.

    rank: that plays it, or a `SeedRank`. index: of the environment, or of what else a number is drawn for.
    """
    return int(np.random.SeedSequence([run_seed, int(rank), index, episode]).generate_state(1)[0])
