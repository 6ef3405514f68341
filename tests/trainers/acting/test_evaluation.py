"""Evaluation while workers fail: faults are counted, and a film is of a whole episode or there is none."""

import numpy as np
import pytest

from datamodules.envs import counting
from datamodules.envs.pool import EnvPool
from datamodules.envs.seeds import SeedRank, episode_seed
from tests.conftest import small_agent
from trainers.acting.evaluation import EvaluationFailed, Evaluator
from trainers.acting.pictures import write_pictures

STEPS = 4


def evaluated(bad_episode, *, envs, episodes, fault_at=0):
    """An evaluation in which episode `bad_episode` fails, or each of them."""
    seed = None if bad_episode is None else episode_seed(0, SeedRank.EVALUATION, 0, bad_episode)
    options = {"fault": "raise", "fault_at": fault_at, "fault_seed": seed, "episode_steps": STEPS}
    with EnvPool(source="counting", kwargs=options, count=envs, max_restarts=9) as pool:
        return Evaluator(lambda _: pool, envs=envs, seed=0).run(small_agent(), episodes=episodes), pool.spec


@pytest.mark.parametrize("fault_at", [0, 2])
def test_the_film_is_of_the_first_whole_episode(fault_at):
    evaluation, _ = evaluated(0, envs=1, episodes=2, fault_at=fault_at)
    assert evaluation.faults == 1 and len(evaluation.returns) == 1
    seed = episode_seed(0, SeedRank.EVALUATION, 0, 1)
    assert [counting.decode(frame) for frame in evaluation.filmed.pixels] == [(t, seed % 256) for t in range(STEPS + 1)]
    assert evaluation.filmed.action.shape == (STEPS + 1, 2)
    assert evaluation.filmed.reward.sum() == pytest.approx(evaluation.returns[0])


def test_no_film_where_no_episode_of_it_is_whole(tmp_path):
    evaluation, spec = evaluated(0, envs=2, episodes=2)
    assert evaluation.faults == 1 and len(evaluation.returns) == 1
    assert evaluation.filmed is None
    assert write_pictures(tmp_path, small_agent(), evaluation, spec, name="x") == []
    assert np.isfinite(evaluation.return_mean)


def test_an_evaluation_without_a_whole_episode_says_why():
    with pytest.raises(EvaluationFailed, match="on purpose"):
        evaluated(None, envs=2, episodes=2, fault_at=1)


def test_a_pool_is_opened_anew_for_more_environments_only():
    """The width counts, not the processes: a VectorPool has one for all its lanes."""
    widths = []

    class OneWorker(EnvPool):
        pids = (1,)

    def opened(width):
        widths.append(width)
        return OneWorker(source="counting", kwargs={"episode_steps": 2}, count=width)

    evaluator = Evaluator(opened, envs=3, seed=0)
    for episodes in (2, 2, 1, 5, 3):
        evaluator.run(small_agent(), episodes=episodes)
    evaluator.close()
    assert widths == [2, 3]
