"""The squashed normal's own options."""

import pytest

from worldmodel.actors.squashed_normal import SquashedNormalActor
from worldmodel.errors import BadValue


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ({"min_std": -1.0}, "min_std: expected a finite number above 0 and at most 1.0, got -1.0"),
        ({"min_std": 2.0}, "min_std: expected a finite number above 0 and at most 1.0, got 2.0"),
        ({"max_std": 0.0}, "max_std: expected a finite number above 0, got 0.0"),
        ({"mean_bound": 0.0}, "mean_bound: expected a finite number above 0, got 0.0"),
    ],
)
def test_bounds_of_mean_and_std_are_checked(option: dict[str, float], said: str) -> None:
    """Each of them makes densities that are no numbers, which would end a run many updates later."""
    with pytest.raises(BadValue, match=said):
        SquashedNormalActor(latent_dim=3, action_dim=2, **option)
