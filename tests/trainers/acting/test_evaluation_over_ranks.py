"""Ranks that evaluate by turns have the returns of one rank alone, to the bit, and stop together."""

from dataclasses import replace

import pytest
import torch

from datamodules.envs.pool import EnvPool
from tests.conftest import small_agent
from tests.rigs.gloo import in_ranks
from trainers.acting.evaluation import Evaluator
from trainers.process.interrupt import Interrupted

EPISODES = 5


def evaluated(*, over_ranks, should_stop=lambda: False):
    torch.set_num_threads(1)
    torch.manual_seed(0)
    agent = small_agent().eval()
    with EnvPool(source="toy", kwargs={"size": 16, "episode_steps": 6, "random_goal": True}, count=2) as pool:
        evaluator = Evaluator(lambda _: pool, envs=2, seed=3)
        return evaluator.run(agent, episodes=EPISODES, should_stop=should_stop, over_ranks=over_ranks)


def rank_main(rank):
    whole = evaluated(over_ranks=True)
    stopped = False
    try:
        evaluated(over_ranks=True, should_stop=lambda: rank == 1)
    except Interrupted:
        stopped = True
    frames = None if whole.filmed is None else whole.filmed.pixels
    return rank, replace(whole, filmed=None), frames, stopped


@pytest.fixture(scope="module")
def ranks():
    return in_ranks(rank_main, 2)


def test_all_ranks_get_the_returns_of_one_rank(ranks):
    alone = evaluated(over_ranks=False)
    assert len(set(alone.returns)) == EPISODES
    for _, found, _, _ in ranks:
        assert (found.returns, found.seeds) == (alone.returns, alone.seeds)
        assert (found.env_steps, found.decisions, found.faults) == (alone.env_steps, alone.decisions, 0)
        assert len(found.decision_ms) == len(alone.decision_ms)
    (_, _, film, _), (_, _, none, _) = ranks
    assert none is None and (film == alone.filmed.pixels).all()


def test_a_signal_to_one_rank_stops_both(ranks):
    assert [stopped for *_, stopped in ranks] == [True, True]
