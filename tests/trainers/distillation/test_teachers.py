"""Names of teachers: labels and metrics are kept by them."""

import pytest

from trainers.distillation.teachers import distinct


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (["a", "b"], ["a", "b"]),
        (["a", "a", "a"], ["a", "a-2", "a-3"]),
        (["Pendulum-v1", "Pendulum-v1"], ["Pendulum-v1", "Pendulum-v1-2"]),
        (["a", "a", "a-2"], ["a", "a-3", "a-2"]),
        (["a-2", "a", "a"], ["a-2", "a", "a-3"]),
    ],
)
def test_every_teacher_has_a_name_of_its_own(names: list[str], told: list[str]) -> None:
    assert distinct(names) == told
