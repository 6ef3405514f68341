"""Students from a configuration, which names the tasks that they were taught."""

import json
from collections.abc import Mapping, Sequence
from itertools import count
from typing import Any

from torch import nn

from trainers.build.agent import build_dynamics, build_each, build_norm
from worldmodel.agents.student import Student, TaskInput, reading
from worldmodel.observations import ObservationEncoder
from worldmodel.spec import EnvSpec

Config = Mapping[str, Any]

# of an encoder's channels over its teacher's, where it is the student's own; features of a frame, and hidden width
SIZES = {"small": (0.5, 64, 128), "medium": (1.0, 128, 256), "large": (2.0, 256, 512)}
SEEN_BY = ("encoder", "vector_encoder", "encoders", "vector_norm")  # the keys of an agent that say how it sees


def student_options(teachers: list[tuple[Config, EnvSpec]], *, size: str, stack: int, encoder: str) -> dict[str, Any]:
    """The `agent` of a student's configuration.

    Args:
        teachers: configuration and environment of each, in the order of the tasks' numbers.
        size: a name of SIZES.
        stack: frames that the student sees.
        encoder: "filter" for frames as the teacher's encoder and filter read them, "teacher" as its encoder does, "own"
            as one that is learned with the rest.
    """
    channels, features, hidden = SIZES[size]
    share = channels if encoder == "own" else 1.0
    first = teachers[0][0]["agent"]
    return {
        "name": "student",
        "act_with": "actor",
        "discount": first["discount"],
        "explore_std": first["explore_std"],
        "task": 0,
        "stack": stack,
        "encoder": encoder,
        "features": features,
        "hidden": hidden,
        "layers": 2,
        "tasks": [
            {
                "spec": spec.to_json(),
                **_narrowed({k: v for k, v in config["agent"].items() if k in SEEN_BY}, share),
                **({"dynamics": config["dynamics"]} if encoder == "filter" else {}),
            }
            for config, spec in teachers
        ],
    }


def build_student(config: Config) -> Student:
    """The student with freshly initialised weights.

    Tasks whose observations have the same form share an encoder of their own, which is trained for all; a teacher's
    encoder and filter are that task's alone, and frozen.
    """
    options = config["agent"]
    shared: dict[str, tuple[ObservationEncoder, nn.Module]] = {}
    tasks = []
    for task in options["tasks"]:
        spec = EnvSpec.from_json(task["spec"])
        form = json.dumps([dict(spec.images), dict(spec.vectors), {k: task[k] for k in SEEN_BY if k in task}])
        own, filter = options["encoder"] == "own", None
        if not own or form not in shared:
            encoder, size = ObservationEncoder(build_each(task, "encoder", spec)).requires_grad_(own), None
            if options["encoder"] == "filter":
                filter = build_dynamics(task["dynamics"], spec, embed_dim=encoder.embed_dim).requires_grad_(False)
                size = filter.latent_dim
            shared[form] = encoder, reading(size or encoder.embed_dim, options["features"])
        part = TaskInput(build_norm(task, spec), *shared[form], action_dim=spec.action_dim, filter=filter)
        tasks.append(part)
    sizes = {key: options[key] for key in ("features", "hidden", "layers", "stack", "discount", "task")}
    return Student(tasks, **sizes)


def folder_names(tasks: Sequence[str]) -> list[str]:
    """What a student's tasks are called, as folders can be: from the second of a name on with the first free number."""
    tasks, names = [task.replace("/", "_").replace(":", "_") for task in tasks], list[str]()
    for task in tasks:
        numbered = (f"{task}-{k}" for k in count(2))
        names.append(task if task not in names else next(one for one in numbered if one not in {*names, *tasks}))
    return names


def _narrowed(options: Any, share: float) -> Any:
    """The options of encoders with `share` of their channels, at least 4."""
    if not isinstance(options, Mapping):
        return options
    return {
        key: [max(4, round(share * n)) for n in value] if key == "channels" else _narrowed(value, share)
        for key, value in options.items()
    }
