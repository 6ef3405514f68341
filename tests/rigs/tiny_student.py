"""The run folder of a student with random weights: what exports and runs it does not ask what it has learned."""

from pathlib import Path
from typing import Any

import torch

from tests.rigs.tiny_bundle import SPEC
from trainers.build.student import build_student, student_options
from trainers.command.configuration import load_config
from trainers.distillation.student_folder import WITHOUT, save
from trainers.run_folder.paths import RunPaths
from trainers.run_folder.records import write_records
from worldmodel.agents.student import Student
from worldmodel.spec import EnvSpec


def tiny_student(
    folder: Path, *overrides: str, specs: tuple[EnvSpec, ...] = (SPEC,), task: int = 0, **options: Any
) -> Student:
    """Write one and return the student; `options` are those of `student_options`."""
    config = load_config(["experiment=smoke", *overrides])
    options = {"size": "small", "stack": 2, "encoder": "own", **options}
    agent = {**student_options([(config, spec) for spec in specs], **options), "task": task}
    taught_by = {"checkpoint": [str(folder / f"teacher{number}") for number in range(len(specs))]}
    config |= {group: {"name": None} for group in WITHOUT} | {"agent": agent, "distillation": taught_by}
    torch.manual_seed(0)
    student = build_student(config)
    paths = RunPaths(folder)
    paths.create()
    write_records(paths, config, specs[task], device="cpu", renderer="none")
    save(paths, student, {}, progress=1)
    return student.eval()
