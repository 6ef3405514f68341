"""What a distillation is told on the command line, checked before anything is loaded."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from trainers.command.arguments import Key
from trainers.command.configuration import BadConfig, finite_number, read_yaml, whole_number
from trainers.command.preflight import LARGEST_SEED

SIZES = ("small", "medium", "large")
ENCODERS = ("filter", "teacher", "own")

KEYS = {
    "checkpoint": Key(
        "run folders of agents that plan, or checkpoints; several give one student of several tasks",
        aliases=("run",),
        several=True,
    ),
    "run_dir": Key("the student's run folder: runs/<task>-student/<time> by default"),
    "resume": Key("a student's run folder: continue where it stopped, with its own options"),
    "student.size": Key(f"{', '.join(SIZES)}: width of its layers, and of an encoder of its own", "small"),
    "student.encoder": Key(
        "filter: frames are read by the teacher's encoder and filter; teacher: by its encoder; own: learned", "filter"
    ),
    "student.stack": Key("frames that it sees: 1 with a filter, which remembers, else 3"),
    "rounds": Key("how often to play, label and learn", "5"),
    "env_steps": Key("control steps to play in all rounds together, of each task", "20000"),
    "reanalyse": Key("decisions of the teacher's replay to label in each round, where it has one", "1500"),
    "teacher_share": Key(
        "share of decisions that are the teacher's own: 1 in round 0, this to the power of N in N", "0.5"
    ),
    "updates": Key("at most so many in a round: it ends when the loss on held-out episodes stops falling", "2000"),
    "batch": Key("windows of an update, over all tasks", "64"),
    "length": Key("rows of a window", "6"),
    "learning_rate": Key("of the student", "0.001"),
    "envs": Key("environments side by side, of each task", "4"),
    "episodes": Key("of every evaluation", "10"),
    "seed": Key("of the student and of what is played", "0"),
    "device": Key("where teachers and student compute", "cpu"),
}
LEAST = {"student.stack": 1, "rounds": 1, "env_steps": 1, "reanalyse": 0, "updates": 1, "batch": 1, "length": 2}
LEAST |= {"envs": 1, "episodes": 1, "seed": 0}


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The keys of KEYS that shape a run, by their last name."""

    checkpoint: tuple[str, ...]
    size: str
    encoder: str
    stack: int
    rounds: int
    env_steps: int
    reanalyse: int
    teacher_share: float
    updates: int
    batch: int
    length: int
    learning_rate: float
    envs: int
    episodes: int
    seed: int
    device: str

    @classmethod
    def typed(cls, own: Mapping[str, Any]) -> "Options":
        """From the texts of a command line; raises BadConfig that names the first wrong one."""
        own = {**own, "student.stack": own["student.stack"] or ("1" if own["student.encoder"] == "filter" else "3")}
        numbers = {key: whole_number(key, own[key], least=least) for key, least in LEAST.items()}
        if numbers["seed"] > LARGEST_SEED:
            raise BadConfig(f"seed: expected at most {LARGEST_SEED}, got {numbers['seed']}")
        if numbers["length"] < numbers["student.stack"]:
            stack, length = numbers["student.stack"], numbers["length"]
            raise BadConfig(f"length: expected at least student.stack={stack} rows, got {length}")
        for key, known in (("student.size", SIZES), ("student.encoder", ENCODERS)):
            if own[key] not in known:
                raise BadConfig(f"{key}: expected {', '.join(known)}, got {own[key]!r}")
        return cls(
            checkpoint=tuple(own["checkpoint"]),
            size=own["student.size"],
            encoder=own["student.encoder"],
            teacher_share=finite_number("teacher_share", own["teacher_share"], least=0, most=1),
            learning_rate=finite_number("learning_rate", own["learning_rate"], above=0),
            device=own["device"],
            **{key.removeprefix("student."): number for key, number in numbers.items()},
        )

    @classmethod
    def saved(cls, root: Path) -> "Options":
        """Those of the run that a folder holds; raises BadConfig where it holds none of `trainers.distill`."""
        record, names = read_yaml(root / "config.yaml").get("distillation"), {field.name for field in fields(cls)}
        if not isinstance(record, dict):
            raise BadConfig(f"resume: expected a run of trainers.distill, got {root}")
        if record.keys() != names:
            raise BadConfig(f"resume: expected a run of trainers.distill with {', '.join(sorted(names))}, got {root}")
        return cls(**{**record, "checkpoint": tuple(record["checkpoint"])})

    def record(self) -> dict[str, Any]:
        """Plain values for a file."""
        return {**asdict(self), "checkpoint": list(self.checkpoint)}
