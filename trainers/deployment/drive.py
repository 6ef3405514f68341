"""The real-time loop: a bundle's controller on a simulated robot, every decision recorded."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from itertools import count
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from datamodules.envs.errors import UnknownTask
from datamodules.envs.protocol import Pool
from datamodules.envs.seeds import SeedRank, episode_seed
from trainers.build.environments import open_pool
from trainers.bundle.bundle import read_bundle
from trainers.bundle.control_spec import ControlSpec, DeviceDiffers
from trainers.command.configuration import BadConfig, finite_number, load_config, whole_number
from trainers.command.new_run import make_out_folder
from trainers.deployment.action_gate import ActionGate
from trainers.deployment.api_key import read_api_key
from trainers.deployment.controller import Controller
from trainers.deployment.drive_report import write_drive_report
from trainers.deployment.rerun_recording import RerunRecording
from trainers.deployment.robot import Played, Robot
from trainers.deployment.status import Status
from trainers.deployment.telemetry import Telemetry
from trainers.process.realtime import runs_first
from trainers.reporting.tables import show_facts
from trainers.run_folder.records import versions, write_json
from trainers.run_folder.statistics import mean_ci95
from trainers.run_folder.three_digits import three_digits
from worldmodel.spec import UNITS, EnvSpec

REPORT = "report.html"
OFTEN = 0.01  # of the decisions, when late ones are worth a word
TAKEN = 0.9  # of a period after which the robot takes no action for its frame


@runtime_checkable
class Driver(Protocol):
    """Chooses actions in real time: a controller, or one behind a socket."""

    telemetry: Telemetry

    def reset(self) -> None:
        """Begin an episode."""

    def release(self) -> None:
        """End a latched stop by hand."""

    def step(self, observation: Any, stamp: float | None = None, sequence: int | None = None) -> tuple[Any, Status]:
        """An action in the robot's units, and where it comes from."""


def drive(*, bundle: str, env: str, overrides: Sequence[str], **own: str | None) -> dict[str, Any]:
    """Play episodes in real time; returns what is printed as the last line. Texts are as typed; raises UserError."""
    read = read_bundle(bundle)
    control = read.control
    hz = control.hz if own["hz"] is None else finite_number("hz", own["hz"], least=0.01)
    episodes, seed = whole_number("episodes", str(own["episodes"])), whole_number("seed", str(own["seed"]), least=0)
    delay, camera = whole_number("delay", str(own["delay"]), least=0), _camera(own["camera"])
    out = _new_folder(own["out"], read.folder)
    with _said_of_env():
        config = load_config([f"task={env}", *_like_training(control.env, env), *overrides])
    if not any(text.lstrip("+").startswith("task.visuals") for text in overrides):
        config["task"]["visuals"] = dict(control.env.visuals)  # what the agent has seen frames through
    budget_s = None if own["budget_ms"] is None else finite_number("budget_ms", own["budget_ms"], least=0.1) / 1e3
    if own["api_key_file"] and not own["server"]:
        raise BadConfig("api_key_file: expected none without server=, which it is for")
    recorder = nullcontext() if own["rerun"] is None else RerunRecording(own["rerun"])
    with recorder as recording, _said_of_env(), open_pool(config, 1) as pool:
        require_fits(control, pool.spec)
        make_out_folder(out)
        driver: Any
        if own["server"]:
            driver = _remote(own["server"], control, hz, read_api_key(own["api_key_file"]))
        else:
            driver = Controller(read, hz=hz, budget_s=budget_s, planner=str(own["planner"]), seed=seed)
        driver.telemetry.first = "policy" if read.what == "policy" else "plan"
        with driver:
            timing = {"period_s": 1 / hz, "budget_s": max(budget_s or 0.0, TAKEN / hz)}
            played = [
                _episode(driver, pool, control, seed=episode_seed(seed, SeedRank.EVALUATION, 0, i), reply=i, **timing,
                         delay=delay, camera=camera, recording=recording)
                for i in range(episodes)
            ]  # fmt: skip
            return _results(out, driver, played, pool.spec, hz=hz, bundle=bundle, sha256=read.sha256)


def _episode(
    driver: Driver,
    pool: Pool,
    control: ControlSpec,
    *,
    seed: int,
    reply: int,
    period_s: float,
    budget_s: float,
    delay: int,
    camera: tuple[int, int] | None,
    recording: RerunRecording | None,
) -> Played:
    """One episode: for every frame the driver's action, for a frame that does not come one too."""
    robot = Robot(pool, period_s=period_s, budget_s=budget_s, delay=delay, camera=camera)
    to_unit = ActionGate(control).unit
    driver.reset()
    driver.release()  # a simulated robot that begins anew has been seen to
    robot.begin(seed)
    frame = robot.next_frame(-1, 120.0)
    while frame is not None and not frame.is_last:
        action, status = driver.step(frame.observation, frame.stamp, frame.sequence)
        robot.act(frame.sequence, to_unit(action))
        if recording is not None:
            recording.add(frame.observation, action, status)
        last = frame
        frame = robot.next_frame(last.sequence, 2 * period_s)
        while frame is None:  # the camera is silent: the controller is asked all the same
            action, status = driver.step(None)
            if recording is not None:
                recording.add(None, action, status)
            frame = robot.next_frame(last.sequence, period_s)
    return robot.end()


def _results(
    out: Path, driver: Driver, played: Sequence[Played], spec: EnvSpec, *, hz: float, bundle: str, sha256: str
) -> dict[str, Any]:
    whole = [one for one in played if not one.fault]
    if not whole:
        raise BadConfig(f"env: every episode was cut short, the last by {played[-1].fault}")
    returns = [one.total_return for one in whole]
    summary = driver.telemetry.summary()
    results = {
        "task": spec.task,
        "return_mean": float(np.mean(returns)),
        "return_ci95": mean_ci95(returns),
        "returns": returns,
        "episodes": len(returns),
        "hz": hz,
        **summary,
        "frames_missing": summary["missing"],
        "missing": sum(one.missing for one in played),
        "overruns": sum(one.overruns for one in played),
        "faults": len(played) - len(whole),
        "bundle": bundle,
        "sha256": sha256,
        "csv": str(driver.telemetry.write_csv(out / "decisions.csv")),
    }
    results["report"] = str(write_drive_report(out / REPORT, results, driver.telemetry.rows))
    write_json(out / "drive.json", {**results, "versions": versions(), "when": time.strftime("%Y-%m-%d %H:%M:%S")})
    shown = ("decisions", "late", "missing", "fallbacks", "p50_ms", "p99_ms", "p999_ms", "report")
    facts = {"return_mean": three_digits(results["return_mean"]), **{key: str(results[key]) for key in shown}}
    if summary["late"] > OFTEN * summary["decisions"] and not runs_first():
        facts["advice"] = "realtime=true runs this before the machine's other processes"
    if stopped := summary["sources"]["stopped"]:
        reasons = [row.observation for row in driver.telemetry.rows if row.observation != "ok"]
        facts["stopped"] = f"{stopped} decisions, by {reasons[0] if reasons else 'late or missing actions'}"
    show_facts(spec.task, facts)
    return results


def _new_folder(out: str | None, bundle: Path) -> Path:
    """Where the report goes: `out`, which must have none, or BUNDLE_drive, BUNDLE_drive_2, ..., the first without."""
    if out is None:
        bundle = bundle.resolve()  # "." has no name
        names = (bundle.with_name(f"{bundle.name}_drive" + (f"_{n}" if n > 1 else "")) for n in count(1))
        return next(folder for folder in names if not (folder / REPORT).exists())
    folder = Path(out).expanduser()
    if (folder / REPORT).exists():
        raise BadConfig(f"out: expected a folder without an earlier report, got {folder / REPORT}")
    return folder


@contextmanager
def _said_of_env() -> Iterator[None]:
    """Say of `env`, this command's name for the configuration's `task`, what is wrong with that."""
    try:
        yield
    except (BadConfig, UnknownTask) as error:
        if error.key != "task":
            raise
        raise type(error)(error.said, key="env") from error


def _like_training(spec: EnvSpec, env: str) -> list[str]:
    """What the bundle's agent was trained with, for an environment that can be given it."""
    options = load_config([f"task={env}"])["task"]["env"]
    wanted: dict[str, Any] = {"action_repeat": spec.action_repeat}
    sides = {side for shape in spec.images.values() for side in shape[1:]}
    if len(sides) == 1:
        wanted["size"] = sides.pop()
    found = [f"++task.env.{key}={value}" for key, value in wanted.items() if key in options or key == "action_repeat"]
    look = [f"task.env.look={spec.look}"] if spec.look in ("suite", "fast") and "look" in options else []
    return found + look


def require_fits(control: ControlSpec, spec: EnvSpec) -> None:
    """Raise DeviceDiffers where an environment shows, or takes, something else than the bundle's robot."""
    for fact, mine, other in control.env.differences(spec, UNITS):
        raise DeviceDiffers(f"env.{fact}: the bundle has {mine}, the environment {other}")


def _remote(server: str, control: ControlSpec, hz: float, api_key: str | None) -> Any:
    try:
        from websockets.exceptions import WebSocketException

        from trainers.deployment.openpi_codec import BadMessage
        from trainers.deployment.remote_controller import RemoteController
    except ModuleNotFoundError as error:
        raise BadConfig(f"server: expected {error.name} to be installed: pip install 'worldmodel[deploy]'") from error
    try:
        return RemoteController(server, control, hz=hz, api_key=api_key)
    except (OSError, TimeoutError, WebSocketException, BadMessage) as error:
        raise BadConfig(f"server: expected ws://host:port of trainers.serve, got {server} ({error})") from error


def _camera(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    width, _, height = text.partition("x")
    if not (width.isdecimal() and height.isdecimal() and 1 <= int(width) <= 4096 and 1 <= int(height) <= 4096):
        raise BadConfig(f"camera: expected WIDTHxHEIGHT such as 640x480, got {text!r}")
    return int(height), int(width)
