"""The agents that teach, each with its task, from their run folders, which stay as they are."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from datamodules.storage.shards import current_shards
from trainers.build.agent import build_trained_agent
from trainers.build.student import folder_names
from trainers.command.configuration import BadConfig, is_student, override_saved, read_yaml, run_title
from trainers.command.preflight import check
from trainers.run_folder.find import find_checkpoint, read_spec
from worldmodel.agents.latent_mpc import LatentMPC
from worldmodel.spec import EnvSpec


@dataclass(frozen=True, slots=True)
class Teacher:
    """A trained agent that plans, its run folder, and the name of its task, which a number tells apart from others."""

    name: str
    root: Path
    config: dict[str, Any]
    spec: EnvSpec
    agent: LatentMPC

    @property
    def acts_with(self) -> str:
        """The planner that labels and is evaluated, whatever acts in its run."""
        return f"planner={self.config['planner']['name']}"

    @property
    def replay(self) -> Path | None:
        """What it learned from, where its run folder still has it."""
        folder = self.root / "replay"
        return folder if any(current_shards(folder).glob("rank_*/stream_*")) else None


def load_teachers(paths: Sequence[str], *, device: str) -> list[Teacher]:
    """The agents of run folders or checkpoints; raises BadConfig for one that has no task or does not plan."""
    found = [find_checkpoint(Path(path), key="checkpoint") for path in paths]
    saved = [read_yaml(root / "config.yaml") for root, _ in found]
    parts = list(dict.fromkeys(folder for config in saved for folder in config.get("parts") or []))
    teachers: list[Teacher] = []
    for (root, checkpoint), own in zip(found, saved, strict=True):
        if is_student(own):
            raise BadConfig(f"checkpoint: expected agents that plan, got the student {root}")
        config = override_saved(own, [f"parts={json.dumps(parts)}"])
        # labels are of a planner that plans at every decision: so is what they are compared with
        config = config | {"agent": {**config["agent"], "act_with": "planner", "replan": 1}}
        check(config)
        if config["task"]["source"] is None:
            raise BadConfig(
                f"checkpoint: expected a run with a task to act in, got {root}, which knows recordings alone"
            )
        spec = read_spec(root, key="checkpoint")
        agent = build_trained_agent(config, spec, checkpoint).to(device)
        teachers.append(Teacher(run_title(config), root, config, spec, agent))
    names = folder_names([teacher.name for teacher in teachers])
    return [replace(teacher, name=name) for teacher, name in zip(teachers, names, strict=True)]
