"""A student's run folder: an ordinary one, that every command can read; one more for each task beyond the first."""

from collections.abc import Mapping, Sequence
from typing import Any

from trainers.build.environments import POOL_LIMITS
from trainers.build.student import student_options
from trainers.distillation.options import Options
from trainers.distillation.teachers import Teacher
from trainers.run_folder.checkpoint import prune, save_checkpoint
from trainers.run_folder.conversion import FORMAT
from trainers.run_folder.paths import RunPaths
from trainers.run_folder.records import write_records
from worldmodel.agents.student import Student

KEPT = 2
# groups of a run's configuration that a student has no part of
OF_TASKS = ("task", "evaluation", "render")  # what of a teacher's configuration a task's run folder has
WITHOUT = ("dynamics", "planner", "policy", "objective", "decoder")


def student_config(teachers: Sequence[Teacher], options: Options, paths: RunPaths) -> dict[str, Any]:
    """The configuration of a student's run: its first teacher's task, and an agent that is no planner."""
    first = teachers[0].config
    agent = student_options(
        [(t.config, t.spec) for t in teachers], size=options.size, stack=options.stack, encoder=options.encoder
    )
    config: dict[str, Any] = {**first, **{group: {"name": None} for group in WITHOUT}}
    # of the teacher's data section only what its environments are opened with; nothing is trained on from here
    data = {"name": "distilled", **{key: first["data"][key] for key in POOL_LIMITS if key in first["data"]}}
    config |= {"agent": agent, "data": data, "distillation": options.record(), "seed": options.seed}
    return config | {"run_dir": str(paths.root), "resume": None}


def save(paths: RunPaths, student: Student, state: Mapping[str, Any], *, progress: int) -> None:
    """Write a checkpoint, whole or not at all, and remove older ones; raises OSError."""
    weights = {f"agent.{name}": weight for name, weight in student.state_dict().items()}
    content = {"format": FORMAT, "state_dict": weights, "distillation": dict(state)}
    save_checkpoint(content, paths.checkpoint(progress))
    prune(paths.checkpoints, keep=KEPT)


def write_task_folders(
    paths: RunPaths, config: Mapping[str, Any], teachers: Sequence[Teacher], student: Student, *, progress: int
) -> list[RunPaths]:
    """The run folder of every task: `tasks/<name>` beside the first's own, with the same weights."""
    folders = [paths]
    for number, teacher in enumerate(teachers[1:], 1):
        folder = RunPaths(paths.root / "tasks" / teacher.name)
        folder.create()
        own: dict[str, Any] = {key: teacher.config[key] for key in OF_TASKS if key in teacher.config}
        own |= {"agent": {**config["agent"], "task": number}, "run_dir": str(folder.root)}
        folder.config.unlink(missing_ok=True)  # of an earlier end of this run, not worth keeping beside
        device, renderer = config["distillation"]["device"], teacher.spec.backend
        write_records(folder, {**config, **own}, teacher.spec, device=device, renderer=renderer)
        save(folder, student, {}, progress=progress)
        folders.append(folder)
    return folders
