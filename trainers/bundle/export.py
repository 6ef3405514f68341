"""A run's checkpoint as a bundle."""

import json
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from datamodules.formats.protocol import FormatError
from datamodules.formats.uri import open_reader
from trainers.build.agent import load_weights
from trainers.build.student import build_student, folder_names
from trainers.bundle.bundle import GROUPS, WHAT, Acting, as_json, encode, rebuild
from trainers.bundle.control_spec import ControlSpec, Limits
from trainers.bundle.files import PARITY, PROGRAMS, require_free, write_files
from trainers.bundle.parity import Call, ParityFailed, by_onnx, compare
from trainers.bundle.programs import Program, programs_of, record, require_formats, to_onnx, to_torch
from trainers.bundle.recorded_rows import Row, newest_rows, recorded_rows
from trainers.command.configuration import BadConfig, finite_number, is_student, override_saved, read_yaml, whole_number
from trainers.command.new_run import make_out_folder
from trainers.command.preflight import check
from trainers.deployment.surprise import calibrated_limit
from trainers.reporting.tables import show_facts
from trainers.run_folder.checkpoint import load_checkpoint
from trainers.run_folder.find import data_uri, find_checkpoint, is_run, read_spec, run_of
from trainers.run_folder.records import versions
from worldmodel.agents.student_in_task import StudentInTask
from worldmodel.spec import EnvSpec


def export(*, checkpoint: str, out: str, overrides: list[str], **own: Any) -> dict[str, Any]:
    """Write a bundle; returns what is printed as the last line. Texts are as typed.

    Raises:
        UserError: for a text that is wrong, a folder that is taken, or programs that act differently.
    """
    folder = Path(out).expanduser()
    require_free(folder)
    formats, tolerance = require_formats(own["format"]), finite_number("tolerance", own["tolerance"], least=0)
    count, alarm_rows = (whole_number(key, own[key], least=least) for key, least in (("frames", 1), ("alarm_rows", 0)))
    root, path = find_checkpoint(Path(checkpoint), key="checkpoint")
    config = override_saved(read_yaml(root / "config.yaml"), overrides)
    check(config)
    env = read_spec(root, key="checkpoint")
    what = _what(config, own["what"])
    recorded_in: Path | None = root
    if is_student(config):
        config, env, recorded_in = _in_task(config, own["task"])
    elif own["task"] is not None:
        raise BadConfig(f"task: expected none, since the run is no student, got {own['task']!r}")
    control = _control(env, own)
    config = _acting(config, what)
    make_out_folder(folder.parent)
    agent = _slim(config, control, path)
    if control.delay and not _can_predict(agent):
        raise BadConfig(
            f"action_latency_s: expected a delay of 0 decisions, since a student that reads frames without its "
            f"teacher's filter predicts nothing, got {control.delay}"
        )
    recordings = _recordings(recorded_in, own["data"])
    control, alarm_rate = _with_alarm(control, agent, newest_rows(recordings, env, count=alarm_rows))
    files = encode(control=control, what=what, agent=agent, config=config, versions=versions())
    torch.set_num_threads(1)  # as a robot acts: latencies of one core
    programs = programs_of(agent, env, what=what) if formats else {}
    exported, calls = _export(programs, formats)
    report: dict[str, Any] = {"parity_max": None, "ms": {}}  # without programs nothing is compared
    if programs:
        rows, source = recorded_rows(recordings, env, count=count)
        report = {"frames": source, "tolerance": tolerance, "threads": 1, **compare(programs, calls, rows)}
        if not report["parity_max"] <= tolerance:
            raise ParityFailed(f"tolerance: expected actions within {tolerance}, got {report['parity_max']:.3g}")
        files |= exported | {PARITY: as_json(report)}
    digest = write_files(folder, files)
    results = _results(folder, digest, files, report, formats)
    shown = {key: f"{value:.3g}" if isinstance(value, float) else value for key, value in results.items()}
    shown["programs"] = ", ".join(programs)
    show_facts(env.task, {"what": what, **{key: str(value or "") for key, value in shown.items()}})
    results |= {"false_alarm_rate": alarm_rate}
    return {**results, "checkpoint": str(path), "what": what, "hz": control.hz, "delay_decisions": control.delay}


def _what(config: Mapping[str, Any], what: str | None) -> str:
    """What acts: as asked for, where the run has it; None for what acts in the run."""
    if what not in (None, *WHAT):
        raise BadConfig(f"what: expected one of {', '.join(WHAT)}, got {what!r}")
    if is_student(config):
        if what == "planner":
            raise BadConfig("what: expected policy, since a student has no planner, got planner")
        return "policy"
    if config["policy"]["name"] is None:
        if what == "policy":
            raise BadConfig("what: expected planner, since the run learned no policy, got policy")
        return "planner"
    return what or ("policy" if config["agent"]["act_with"] == "actor" else "both")


def _in_task(config: Mapping[str, Any], task: str | None) -> tuple[dict[str, Any], EnvSpec, Path | None]:
    """A student's configuration and environment in one of its tasks, and its teacher's run folder, if it is there.

    config: of its run, or of `tasks/NAME` in it, which is that task's. task: name or number; None leaves no choice.
    """
    options = config["agent"]
    specs = [EnvSpec.from_json(one["spec"]) for one in options["tasks"]]
    names = folder_names([spec.task for spec in specs])
    if task is None and len(specs) > 1 and not options["task"]:
        raise BadConfig(f"task: expected one of {', '.join(names)}, or its number, got none")
    if task is not None and task not in (*names, *map(str, range(len(names)))):
        raise BadConfig(f"task: expected one of {', '.join(names)}, or its number, got {task!r}")
    number = options["task"] if task is None else names.index(task) if task in names else int(task)
    teacher = run_of(Path(config["distillation"]["checkpoint"][number]))
    chosen = {**config, "agent": {**options, "task": number}}
    return chosen, specs[number], teacher if is_run(teacher) else None


def _acting(config: dict[str, Any], what: str) -> dict[str, Any]:
    """What of a configuration acting needs: no decoder, no paths, no parts of a user's own."""
    chosen = {name: config[name] for name in GROUPS} | {"objective": {"name": "none"}}
    act_with = "actor" if what == "policy" else "planner"
    chosen["agent"] = {**chosen["agent"], "act_with": act_with}
    return json.loads(json.dumps(chosen))  # type: ignore[no-any-return]


def _slim(config: dict[str, Any], control: ControlSpec, checkpoint: Path) -> Acting:
    """The agent with those of a checkpoint's weights that it acts with."""
    state = load_checkpoint(checkpoint)["state_dict"]
    if is_student(config):
        student = build_student(config)
        load_weights(student, state)
        return StudentInTask(student).eval().requires_grad_(False)
    learning = ("agent.decoder.", "agent.objective.")
    return rebuild(config, control, {name: w for name, w in state.items() if not name.startswith(learning)})


def _control(env: EnvSpec, own: dict[str, Any]) -> ControlSpec:
    size = 1 if env.discrete else env.action_dim
    numbers = {key: finite_number(key, own[key]) for key in ("hz", "action_latency_s", "observation_age_s")}
    counts = ("missing", "plan_age", "faults", "frozen")
    limits: dict[str, Any] = {key: whole_number(key, own[key], least=0) for key in counts}
    limits["max_age_s"] = (
        finite_number("max_age_s", own["max_age_s"]) if own["max_age_s"] else 3 / max(numbers["hz"], 1e-3)
    )
    return ControlSpec(
        env=env,
        safe_action=None if own["safe_action"] == "hold" else _vector("safe_action", own["safe_action"], size),
        max_change=_vector("max_change", own["max_change"], size) if own["max_change"] else None,
        limits=Limits(**limits),
        **numbers,
    )


def _with_alarm(control: ControlSpec, agent: Acting, rows: list[Row]) -> tuple[ControlSpec, float | None]:
    """The limit of prediction errors, and how often recorded episodes are over it."""
    found = calibrated_limit(agent, rows) if _can_predict(agent) else None
    if found is None:
        return control, None
    limits = replace(control.limits, prediction_error=found[0])
    return replace(control, limits=limits), found[1]


def _can_predict(agent: Acting) -> bool:
    """Whether what is seen next can be predicted."""
    return not isinstance(agent, StudentInTask) or agent.predicts


def _export(
    programs: dict[str, Program], formats: tuple[str, ...]
) -> tuple[dict[str, bytes], dict[str, dict[str, Call]]]:
    """Files of programs, and their calls by form."""
    files: dict[str, bytes] = {}
    calls: dict[str, dict[str, Call]] = {"eager": {name: program.module for name, program in programs.items()}}
    for name, program in programs.items():
        start = time.monotonic()
        if "torch" in formats:
            with _said_of_format("torch", name, without="onnx"):
                recorded = record(program)
            calls.setdefault("torch", {})[name] = recorded.module()
            files[f"{PROGRAMS}/{name}.pt2"] = to_torch(recorded)
        if "onnx" in formats:
            with _said_of_format("onnx", name, without="torch"):
                model = to_onnx(program)
            calls.setdefault("onnx", {})[name] = by_onnx(model, program)
            files[f"{PROGRAMS}/{name}.onnx"] = model
        print(f"{name}: exported in {time.monotonic() - start:.1f} s", file=sys.stderr, flush=True)
    return files, calls


@contextmanager
def _said_of_format(form: str, program: str, *, without: str) -> Iterator[None]:
    """Name the format where a part, perhaps one of a person's own, has no such form."""
    try:
        yield
    except RuntimeError as error:  # as both exporters' errors are
        why = " ".join(str(error).split())[:200]
        raise BadConfig(
            f"format: expected parts that {form} can express, got in the {program} {type(error).__name__}: {why}; "
            f"format={without}, or none, leaves {form} out"
        ) from error


def _results(
    folder: Path, digest: str, files: dict[str, bytes], report: dict[str, Any], formats: tuple[str, ...]
) -> dict[str, Any]:
    def total(form: str) -> float | None:
        times = report["ms"].get(form, {})
        return round(sum(times[name] for name in ("filter", "policy") if name in times), 3) if times else None

    return {
        "bundle": str(folder),
        "sha256": digest,
        "parity_max": report["parity_max"],
        "eager_ms": total("eager"),
        "exported_ms": total(formats[-1]) if formats else None,
        "programs": sorted(name for name in files if name.startswith(PROGRAMS)),
        "megabytes": round(sum(map(len, files.values())) / 1e6, 2),
    }


def _recordings(root: Path | None, data: str | None) -> str | None:
    if data:
        return data_uri(data)
    try:
        uri = None if root is None else data_uri(str(root))
        if uri is not None:
            open_reader(uri).close()
    except (BadConfig, KeyError, FormatError, OSError):
        return None  # what an offline run learned from may lie on another machine
    return uri


def _vector(key: str, text: str, size: int) -> tuple[float, ...]:
    """Numbers of a text `0.1,0.2`; a single one stands for all."""
    values = tuple(finite_number(key, part) for part in text.strip("[]").split(","))
    return values * size if len(values) == 1 else values
