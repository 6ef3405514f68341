"""How long branches may be: by the number of updates, and by what the model's rewards are worth."""

import pytest
import torch

from tests.rigs.lookup_world import Lookup, LookupHead
from worldmodel.dyna.by_reward_error import ByRewardError, open_loop_reward_error
from worldmodel.dyna.by_updates import ByUpdates
from worldmodel.interfaces import Batch, Belief
from worldmodel.latent_rows import LatentRows, Transitions
from worldmodel.simulators.latent import LatentSimulator

B, T = 3, 8


class Line(Lookup):
    """A latent that moves by the action, or stays."""

    def __init__(self, gain: float) -> None:
        nothing = torch.zeros(1, 1)
        super().__init__(Transitions(nothing, nothing, nothing[0], nothing[0], nothing))
        self.gain = gain

    def predict(self, latent, action):
        return latent + self.gain * action


class Identity(LookupHead):
    def __init__(self) -> None:
        super().__init__(torch.zeros(1, 1), torch.zeros(1))

    def forward(self, latent):
        return latent[..., 0]


def simulator(gain: float) -> LatentSimulator:
    return LatentSimulator(dynamics=Line(gain), reward=Identity(), value=None, actor=None, action_dim=1, discount=0.9)


def rows(valid: torch.Tensor | None = None) -> LatentRows:
    """Windows of a latent that moves by its action; its reward is the latent."""
    action = torch.randn(B, T, 1)
    latent, flags = action.cumsum(1), torch.zeros(B, T, dtype=torch.bool)
    batch = Batch({}, action, latent[..., 0], flags, flags, flags)
    return LatentRows.of(batch, Belief(latent, torch.zeros(B, 1), {}, valid))


def test_stages_by_the_number_of_updates() -> None:
    length = ByUpdates(longest=5, updates=8)
    got = [length.next(simulator(1.0), rows()) for _ in range(12)]
    assert got == [1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 5, 5]
    resumed = ByUpdates(longest=5, updates=8)
    resumed.load_state_dict(length.state_dict())
    assert resumed.next(simulator(1.0), rows()) == 5


def test_an_exact_model_is_trusted_further_and_further() -> None:
    length = ByRewardError(longest=5, limit=0.5, rate=0.1)
    got = [length.next(simulator(1.0), rows()) for _ in range(10)]
    assert got[0] == 1 and got[-1] == 5
    assert ByRewardError(longest=30, limit=0.9, rate=0.5).next(simulator(1.0), rows()) == T - 1  # a window's end


def test_a_model_that_predicts_no_change_is_not_trusted() -> None:
    length = ByRewardError(longest=5, limit=0.02, rate=0.5)
    assert {length.next(simulator(0.0), rows()) for _ in range(20)} == {1}


def test_a_depth_is_not_trusted_beyond_one_that_is_not() -> None:
    length = ByRewardError(longest=3, limit=0.5, rate=1e-9)
    length.error.copy_(torch.tensor([0.1, 0.9, 0.1]))
    assert length.next(simulator(1.0), rows()) == 1
    length.error[1] = 0.2
    assert length.next(simulator(1.0), rows()) == 3


def test_the_error_is_that_of_the_recorded_actions_in_units_of_the_variance() -> None:
    given = rows()
    error = open_loop_reward_error(simulator(0.0), given, steps=2, windows=B)
    reward, variance = given.batch.reward, given.batch.reward.var()
    missed = (reward[:, 1:-1] - reward[:, :-2]).square().mean(), (reward[:, 2:] - reward[:, :-2]).square().mean()
    torch.testing.assert_close(error, torch.stack(missed) / variance)


def test_rows_that_may_not_teach_are_not_measured() -> None:
    valid = torch.ones(B, T, dtype=torch.bool)
    valid[0] = False
    given = rows(valid)
    given.batch.action[0] = 100.0  # not what led to its latents
    torch.testing.assert_close(open_loop_reward_error(simulator(1.0), given, steps=2, windows=B), torch.zeros(2))


def test_what_was_never_measured_is_never_trusted() -> None:
    """In episodes of three rows no two are three decisions apart; of no valid row there is nothing to measure."""
    for simulated, valid, trusted in ((1.0, None, 2), (0.0, torch.zeros(B, T, dtype=torch.bool), 1)):
        given, length = rows(valid), ByRewardError(longest=5, limit=0.3, rate=0.1)
        given.batch.is_first[:, ::3] = valid is None
        assert [length.next(simulator(simulated), given) for _ in range(60)][-1] == trusted
        assert (length.error[trusted if valid is None else 0 :] == 1).all()


@pytest.mark.parametrize("options", [{"longest": 0}, {"limit": 0.0}, {"rate": 2.0}])
def test_options_out_of_range(options) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(options))}: expected"):
        ByRewardError(**options)
