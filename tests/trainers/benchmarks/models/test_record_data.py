import numpy as np

from trainers.benchmarks.models.record_data import KINDS, Script


def test_a_script_is_played_from_its_start_in_every_episode():
    actions = np.arange(4, dtype=np.float32)[:, None]
    script = Script(actions)
    first, later = np.array([True]), np.array([False])
    played = [script({}, flag, first) for flag in (first, later, later, first, later)]
    assert np.concatenate(played).ravel().tolist() == [0, 1, 2, 0, 1]


def test_what_is_held_out_is_of_several_kinds():
    held_out = (3, 9, 15, 21)  # every sixth of 24
    assert len({KINDS[number % len(KINDS)] for number in held_out}) > 2
