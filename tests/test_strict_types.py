"""Calls are checked against their annotations while tests run, in all three packages and in processes of their own."""

from collections.abc import Callable

import pytest
import torch
from beartype.roar import BeartypeCallHintViolation
from jaxtyping import TypeCheckError

from datamodules.envs.actions import BoxActions
from datamodules.formats import uri
from trainers.benchmarks.known_dynamics.readout import OwnReward
from trainers.run_folder import paths
from worldmodel import distributions


@pytest.mark.parametrize(
    "call",
    [
        lambda: uri.parse(3),
        lambda: BoxActions("low", "high"),
        lambda: paths.step_name("3"),
        lambda: OwnReward().value(3),
        lambda: distributions.unimix(torch.zeros(3), "half"),
    ],
)
def test_wrong_types_are_refused(call: Callable[[], object]) -> None:
    with pytest.raises((BeartypeCallHintViolation, TypeCheckError)):
        call()
