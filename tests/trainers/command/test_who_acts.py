"""What is to act must be there: refused by key, before anything starts."""

import pytest

from trainers import evaluate, report
from trainers.command.configuration import BadConfig, load_config
from trainers.command.preflight import check
from trainers.deployment.status import SOURCES
from trainers.deployment.telemetry import Telemetry

STUDENT = {"agent": {"name": "student", "act_with": "actor"}, "planner": {"name": None}, "policy": {"name": None}}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["policy=none", "agent.act_with=actor"], "agent.act_with: expected planner, or a policy"),
        (["agent.replan=2", "agent.act_with=actor"], "agent.replan: expected 1, since an actor has no plan"),
    ],
)
def test_an_actor_needs_a_policy_and_has_no_plan(words, message):
    with pytest.raises(BadConfig, match=message):
        check(load_config(["experiment=smoke", *words]))


def test_a_student_acts_by_its_policy_alone():
    check(STUDENT)
    with pytest.raises(BadConfig, match=r"agent.act_with: expected actor"):
        check({**STUDENT, "agent": {"name": "student", "act_with": "planner"}})
    with pytest.raises(BadConfig, match="planner: expected none"):
        check({**STUDENT, "planner": {"name": "cem"}})


def test_only_what_stands_in_for_the_first_choice_is_a_fallback():
    for first, fallbacks in (("plan", 4), ("policy", 2)):
        telemetry = Telemetry(first=first)
        telemetry.counts.update(SOURCES)
        assert telemetry.summary()["fallbacks"] == fallbacks


def test_the_folder_that_is_missing_is_named(tmp_path):
    with pytest.raises(BadConfig, match=r"run: expected .*gone, which does not exist"):
        report.main([str(tmp_path / "gone"), f"against={tmp_path}"])


def test_evaluation_has_one_name_for_its_episodes(tmp_path):
    with pytest.raises(BadConfig, match=r"evaluation.episodes: expected episodes=N"):
        evaluate.main([str(tmp_path), "evaluation.episodes=3"])
