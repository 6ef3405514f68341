"""Names of a student's tasks: labels, metrics and folders are kept by them, and an export chooses by them."""

import pytest

from trainers.build.student import folder_names


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (["a", "b"], ["a", "b"]),
        (["a", "a", "a"], ["a", "a-2", "a-3"]),
        (["gym:Pendulum-v1", "gym:Pendulum-v1"], ["gym_Pendulum-v1", "gym_Pendulum-v1-2"]),
        (["a", "a", "a-2"], ["a", "a-3", "a-2"]),
        (["a-2", "a", "a"], ["a-2", "a", "a-3"]),
    ],
)
def test_every_task_has_a_name_of_its_own(names: list[str], told: list[str]) -> None:
    assert folder_names(names) == told
