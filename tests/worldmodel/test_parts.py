"""Parts are found by name, and every option of one is known by its name."""

import subprocess
import sys

import pytest

from trainers.build.check_parts import fit_options
from trainers.command.configuration import load_config
from trainers.command.registry import BadOption, UnknownComponent
from worldmodel import parts
from worldmodel.errors import BadValue

FOLDERS = (
    *("planners", "dynamics", "objectives", "policies", "heads", "actors", "encoders", "decoders"),
    *("actor_critics", "value_targets", "dyna"),
)


class Base:
    def __init__(self, *, width: int = 3, depth: int = 2) -> None: ...


class Passing(Base):
    options_go_to = Base

    def __init__(self, *, depth: int = 5, rate: float = 0.5, **options: int) -> None: ...


class Inheriting(Passing):
    pass


class OnItsOwn(Passing):
    def __init__(self, *, height: int = 1) -> None: ...


class Keeping(Passing):
    def __init__(self, **options: int) -> None: ...


def test_options_that_are_passed_on_are_those_where_they_go() -> None:
    for kind in (Passing, Inheriting):
        defaults = {name: parameter.default for name, parameter in parts.options_of(kind).items()}
        assert defaults == {"width": 3, "depth": 5, "rate": 0.5}
    assert [*parts.options_of(OnItsOwn)] == ["height"]
    assert [*parts.options_of(Keeping)] == ["options"] and not parts.named(parts.options_of(Keeping))


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_option_of_a_part_is_known_by_name(folder: str) -> None:
    package = f"worldmodel.{folder}"
    names = parts.part_names(package)
    assert names
    for name in names:
        make = parts.find(package, name, key="name")
        options = parts.options_of(make)
        assert parts.named(options) == options.keys() or hasattr(make, "passed_on"), name


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("policy=mixed +policy.horizn=3", "policy.horizn: no option of policy=mixed, did you mean horizon?"),
        ("policy=gps +policy.strenght=3", "policy.strenght: no option of policy=gps, did you mean strength?"),
        ("policy=divide_and_conquer +policy.entropi=0", "policy.entropi: .*, did you mean entropy?"),
        ("policy=dyna +policy.learner.membrs=3", "policy.learner.membrs: no option of learner=max_q, did you mean mem"),
        ("policy=dyna policy.learner.name=maxq", "policy.learner.name: .*, did you mean max_q?"),
        ("planner=ensemble dynamics=ensemble +planner.elitess=3", "planner.elitess: .*, did you mean elites"),
    ],
)
def test_a_misspelt_option_is_told_before_anything_starts(arguments: str, message: str) -> None:
    words = arguments.split()
    with pytest.raises((UnknownComponent, BadOption), match=message.replace("?", r"\?")):
        fit_options(load_config(words), words)


def test_what_a_search_takes_is_kept_under_its_short_name_too() -> None:
    words = ["planner=ensemble", "dynamics=ensemble", "planner.search=random"]
    options = fit_options(load_config(words), words)["planner"]
    assert options["candidates"] == 64 and "elites" not in options


def test_a_part_needs_its_name_and_what_has_no_default() -> None:
    known = ", ".join(parts.part_names("worldmodel.value_targets"))  # parts of another test's folder stay in a process
    assert {"mve", "steve", "td"} <= {*known.split(", ")}
    with pytest.raises(BadValue, match=rf"^target\.name: expected one of {known}, got None$"):
        parts.build("worldmodel.value_targets", {}, key="target")
    with pytest.raises(BadValue, match=r"^actor\.action_dim: expected a value, .*, got none$"):
        parts.build("worldmodel.actors", "squashed_normal", key="actor", latent_dim=3)
    with pytest.raises(BadValue, match=r"^target\.depth: expected a number such as 2, got 'deep'$"):
        parts.build("worldmodel.value_targets", {"name": "mve", "depth": "deep"}, key="target")


def test_names_are_looked_up_without_torch() -> None:
    code = "import sys, worldmodel.parts as p; p.module_names('worldmodel.planners'); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
