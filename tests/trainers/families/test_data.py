import numpy as np

from trainers.exact.cartpole import Cartpole
from trainers.exact.rehearsal import rehearse
from trainers.families.data import KINDS, Script
from worldmodel.planners.cem import CEM


def test_a_rehearsal_repeats_and_noise_changes_it():
    planner = CEM(horizon=3, candidates=8, elites=4, iterations=1)
    arguments = {"domain": "cartpole", "task": "swingup", "seed": 3, "control_steps": 24}
    actions = rehearse(Cartpole(repeat=8), planner, **arguments)
    assert actions.shape == (3, 1) and np.abs(actions).max() <= 1
    assert np.array_equal(actions, rehearse(Cartpole(repeat=8), planner, **arguments))
    noisy = rehearse(Cartpole(repeat=8), planner, **arguments, noise_std=0.5)
    assert not np.allclose(actions, noisy) and np.abs(noisy).max() <= 1


def test_a_script_is_played_from_its_start_in_every_episode():
    actions = np.arange(4, dtype=np.float32)[:, None]
    script = Script(actions)
    first, later = np.array([True]), np.array([False])
    played = [script(None, flag, first) for flag in (first, later, later, first, later)]
    assert np.concatenate(played).ravel().tolist() == [0, 1, 2, 0, 1]


def test_what_is_held_out_is_of_several_kinds():
    held_out = (3, 9, 15, 21)  # every sixth of 24
    assert len({KINDS[number % len(KINDS)] for number in held_out}) > 2
