"""What is out of range is said in one sentence, whoever asks."""

import math

import pytest

from datamodules.envs import checks
from datamodules.envs.errors import BadOption
from trainers.command.configuration import BadConfig, finite_number, load_config, whole_number
from trainers.command.preflight import check
from worldmodel.errors import BadValue
from worldmodel.limits import require_number, require_one_of, require_whole, wrong_number, wrong_whole


@pytest.mark.parametrize("value", [0, 2.0, True, "3", None])
def test_what_is_no_whole_number_is_told_alike(value: object) -> None:
    said = f"^x: expected a whole number of at least 1, got {value!r}$"
    with pytest.raises(BadValue, match=said):
        require_whole(x=value)
    with pytest.raises(BadOption, match=said):
        checks.require_whole("x", value, least=1)


def test_command_line_and_configuration_say_it_too() -> None:
    with pytest.raises(BadConfig, match=r"^x: expected a whole number of at least 2, got '1'$"):
        whole_number("x", "1", least=2)
    with pytest.raises(BadConfig, match=r"^x: expected a finite number above 0 and at most 1, got 'nan'$"):
        finite_number("x", "nan", above=0, most=1)
    assert whole_number("x", "2", least=2) == 2 and finite_number("x", "-0.5") == -0.5
    for wrong, said in {
        "agent.discount=1.5": r"^agent\.discount: expected a finite number above 0 and at most 1, got 1\.5$",
        "++data.validation_share=1": r"validation_share: expected a finite number of at least 0 and below 1, got 1$",
        "data.batch=0": r"^data\.batch: expected a whole number of at least 1, got 0$",
    }.items():
        with pytest.raises(BadConfig, match=said):
            check(load_config([wrong]))


def test_bounds_are_as_they_are_said() -> None:
    assert not wrong_whole(3, least=3, most=3)
    assert wrong_whole(4, most=3) == "expected a whole number of at least 1 and at most 3, got 4"
    assert not any(wrong_number(x, least=0, most=1) for x in (0, 0.5, 1))
    assert all(wrong_number(x, above=0, below=1) for x in (0, 1, math.nan, math.inf, True, "0.5"))
    assert wrong_number(math.inf) == "expected a finite number, got inf"
    with pytest.raises(BadValue, match=r"^rate: expected a finite number above 0, got 0$"):
        require_number(rate=0, above=0)
    with pytest.raises(BadValue, match=r"^of: expected one of cem, mppi, got 'cen', did you mean cem\?$"):
        require_one_of(["cem", "mppi"], of="cen")
