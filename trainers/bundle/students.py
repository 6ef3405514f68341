"""What a student's export asks beyond an agent's: its task, and what it cannot do without a planner or a model."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from trainers.build.agent import load_weights
from trainers.build.student import build_student
from trainers.bundle.bundle import Acting
from trainers.command.configuration import BadConfig
from trainers.run_folder.find import is_run
from worldmodel.agents.student_in_task import StudentInTask
from worldmodel.spec import EnvSpec


def require_policy(what: str | None) -> str:
    """What of a student acts; raises BadConfig where a planner is asked for."""
    if what == "planner":
        raise BadConfig("what: expected policy, since a student has no planner, got planner")
    return "policy"


def in_task(config: Mapping[str, Any], task: str | None) -> tuple[dict[str, Any], EnvSpec, Path | None]:
    """A student's configuration for one of its tasks.

    Args:
        config: of its run, or of `tasks/NAME` in it, which is that task's.
        task: name or number; None where there is no choice.

    Returns:
        The configuration, the task's environment, and the run folder of its teacher, which recorded it, if it is there.

    Raises:
        BadConfig: there is no such task, or several and none is named.
    """
    options = config["agent"]
    specs = [EnvSpec.from_json(one["spec"]) for one in options["tasks"]]
    names = _names(specs)
    if task is None and len(specs) > 1 and not options["task"]:
        raise BadConfig(f"task: expected one of {', '.join(names)}, or its number, got none")
    if task is not None and task not in (*names, *map(str, range(len(names)))):
        raise BadConfig(f"task: expected one of {', '.join(names)}, or its number, got {task!r}")
    number = options["task"] if task is None else names.index(task) if task in names else int(task)
    teacher = Path(config["distillation"]["checkpoint"][number])
    teacher = teacher.parents[1] if (teacher / "manifest.json").exists() else teacher
    chosen = {**config, "agent": {**options, "task": number}}
    return chosen, specs[number], teacher if is_run(teacher) else None


def slim_student(config: Mapping[str, Any], weights: Mapping[str, Tensor]) -> StudentInTask:
    """The student in its task, with a checkpoint's weights."""
    student = build_student(config)
    load_weights(student, weights)
    return StudentInTask(student).eval().requires_grad_(False)


def can_predict(agent: Acting) -> bool:
    """Whether what is seen next can be predicted."""
    return not isinstance(agent, StudentInTask) or agent.predicts


def _names(specs: list[EnvSpec]) -> list[str]:
    """Of tasks, as `tasks/NAME` has them: the second of a name is NAME-2."""
    tasks = [spec.task.replace("/", "_").replace(":", "_") for spec in specs]
    return [f"{task}-{n + 1}" if (n := tasks[:i].count(task)) else task for i, task in enumerate(tasks)]
