"""One distillation, from checked options to its results."""

import os
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import torch

from trainers.acting.pictures import write_pictures
from trainers.build.environments import open_pool
from trainers.build.student import build_student
from trainers.command.entry import silence_advice
from trainers.distillation.dagger import Dagger
from trainers.distillation.measure import parameters, rows_of, table
from trainers.distillation.options import Options
from trainers.distillation.student_folder import student_config, write_task_folders
from trainers.distillation.teachers import load_teachers
from trainers.machine.device import usable_device
from trainers.process.interrupt import Interrupt, Interrupted
from trainers.reporting.run_page import write_report
from trainers.run_folder.find import require_task_fits
from trainers.run_folder.paths import RunPaths
from trainers.run_folder.records import write_json, write_records
from trainers.run_folder.statistics import mean_ci95


def distill(options: Options, root: Path, *, resumed: bool) -> dict[str, Any]:
    """Play, label, learn, measure; returns the results, which are also in the student's run folder `root`.

    Raises:
        BadConfig: names what cannot be.
        EnvError: an environment that cannot be opened.
    """
    silence_advice()
    torch.set_flush_denormal(True)
    usable_device(options.device)
    teachers, paths = load_teachers(options.checkpoint, device=options.device), RunPaths(root)
    with ExitStack() as stack:
        pools = [stack.enter_context(open_pool(teacher.config, options.envs)) for teacher in teachers]
        for teacher, pool in zip(teachers, pools, strict=True):
            require_task_fits(teacher.root, pool.spec, key="checkpoint")
        config = student_config(teachers, options, paths)
        torch.manual_seed(options.seed)
        student = build_student(config)
        for part, teacher in zip(student.tasks, teachers, strict=True):
            part.norm.load_state_dict(teacher.agent.norm.state_dict())  # type: ignore[union-attr]
            if options.encoder != "own":
                part.encoder.load_state_dict(teacher.agent.encoder.state_dict())  # type: ignore[union-attr]
            if options.encoder == "filter":
                part.filter.load_state_dict(teacher.agent.dynamics.state_dict())  # type: ignore[union-attr,attr-defined]
        paths.create()
        stack.callback(os.close, paths.lock())
        interrupt = stack.enter_context(Interrupt())
        if not resumed:
            write_records(paths, config, teachers[0].spec, device=options.device, renderer=pools[0].renderer)
        dagger = Dagger(options, paths, teachers, pools, student.to(options.device), interrupt)
        if resumed:
            done = f"{dagger.progress.round} of {options.rounds} rounds were finished"
            dagger.say(done if dagger.progress.round else "stopped before its first checkpoint: begins again")
        finished = False
        with suppress(Interrupted):
            dagger.run()
            finished = True
        if not finished:
            dagger.say(f"stopped; python -m trainers.distill resume={root} continues")
            code = 128 + (interrupt.received or 0)
            return {"status": "interrupted", "run_dir": str(root), "exit_code": code}
        return _finish(dagger, config)


def _finish(dagger: Dagger, config: dict[str, Any]) -> dict[str, Any]:
    """The run folders of other tasks, films, tables, pages, and what the command prints."""
    student, progress = dagger.student, dagger.progress
    folders = write_task_folders(dagger.paths, config, dagger.teachers, student, progress=progress.position)
    rows: list[dict[str, Any]] = []
    for task, (teacher, evaluation) in enumerate(zip(dagger.teachers, dagger.evaluations, strict=True)):
        student.task = task
        write_pictures(folders[task].videos, student, evaluation, teacher.spec, name="final")
        returns, along = (progress.teacher_returns[task], evaluation.returns), dagger.labels[task].episodes[-1]
        rows += rows_of(teacher, student, returns=returns, along=along, device=dagger.options.device)
    student.task = 0
    dagger.say(table(rows, dagger.paths.root))
    results = _results(dagger, rows)
    for folder, teacher, evaluation in zip(folders, dagger.teachers, dagger.evaluations, strict=True):
        own: dict[str, Any] = {"task": teacher.spec.task, "return_mean": evaluation.return_mean}
        own |= {"return_ci95": mean_ci95(evaluation.returns), "returns": evaluation.returns}
        write_json(folder.root / "results.json", {**results, **own, "run_dir": str(folder.root)})
    for folder, teacher in zip(folders[1:], dagger.teachers[1:], strict=True):
        table([row for row in rows if row["task"] == teacher.name], folder.root)
        write_report(folder.root)
    return {**results, "report": str(write_report(dagger.paths.root))}


def _results(dagger: Dagger, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Of one task numbers, of several lists in the order of the checkpoints."""
    several = len(dagger.teachers) > 1

    def of(policy: str, *names: str) -> Any:
        columns = [
            [row[name] for name in names] if len(names) > 1 else row[names[0]]
            for row in rows
            if row["policy"] == policy
        ]
        return columns if several else columns[0]

    progress, names = dagger.progress, [teacher.name for teacher in dagger.teachers]
    return {
        "task": names if several else names[0],
        "status": "finished",
        "teacher": of("teacher", "acts_with"),
        "teacher_return": of("teacher", "return"),
        "teacher_ci95": of("teacher", "ci95_low", "ci95_high"),
        "student_return": of("student", "return"),
        "student_ci95": of("student", "ci95_low", "ci95_high"),
        "share": of("student", "share"),
        "teacher_ms": of("teacher", "decision_ms"),
        "student_ms": of("student", "decision_ms"),
        "teacher_params": of("teacher", "parameters"),
        "student_params": parameters(dagger.student),
        "episodes": dagger.options.episodes,
        "labels": sum(labels.decisions for labels in dagger.labels),
        "env_steps": progress.env_steps,
        "decisions": progress.decisions,
        "updates": progress.updates,
        "rounds": progress.round,
        "seconds": round(progress.seconds, 1),
        "seed": dagger.options.seed,
        "run_dir": str(dagger.paths.root),
    }
