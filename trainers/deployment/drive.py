"""The real-time loop: a bundle's controller on a simulated robot, every decision recorded."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from datamodules.envs.errors import UnknownTask
from datamodules.envs.protocol import Pool
from datamodules.envs.seeds import SeedRank, episode_seed
from trainers.build.environments import open_pool
from trainers.bundle.bundle import read_bundle
from trainers.bundle.control_spec import ControlSpec, DeviceDiffers, require_rate
from trainers.command.configuration import BadConfig, finite_number, load_config, whole_number
from trainers.deployment.action_gate import ActionGate
from trainers.deployment.api_key import read_api_key
from trainers.deployment.controller import PLANNERS, Controller
from trainers.deployment.drive_film import DriveFilm
from trainers.deployment.drive_folder import report_folder, require_no_report
from trainers.deployment.drive_report import write_drive_report
from trainers.deployment.rerun_recording import RerunRecording
from trainers.deployment.robot import Capture, Played, Robot
from trainers.deployment.status import Status
from trainers.deployment.telemetry import Telemetry
from trainers.process.interrupt import Interrupt
from trainers.process.realtime import runs_first
from trainers.reporting.tables import show_facts
from trainers.run_folder.records import versions, write_json
from trainers.run_folder.statistics import mean_ci95
from trainers.run_folder.three_digits import three_digits
from worldmodel.limits import require_one_of
from worldmodel.spec import UNITS, EnvSpec

OFTEN = 0.01  # of the decisions, when late ones are worth a word
ASK_S = 0.2  # between two looks at whether a signal asked to stop, where nothing comes
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
    """Play episodes in real time; returns what is printed as the last line. Texts are as typed; raises UserError.

    Ctrl-C and SIGTERM end it with the decision under way: what was recorded until then is written, and told.
    """
    read = read_bundle(bundle)
    control = read.control
    hz = control.hz if own["hz"] is None else finite_number("hz", own["hz"], least=0.01)
    require_rate(hz)
    require_one_of(PLANNERS, planner=own["planner"])
    episodes, seed = whole_number("episodes", str(own["episodes"])), whole_number("seed", str(own["seed"]), least=0)
    delay, camera = whole_number("delay", str(own["delay"]), least=0), _camera(own["camera"])
    require_no_report(own["out"])
    with _said_of_env():
        config = load_config([f"task={env}", *_like_training(control.env, env, overrides), *overrides])
    if not any(text.lstrip("+").startswith("task.visuals") for text in overrides):
        config["task"]["visuals"] = dict(control.env.visuals)  # what the agent has seen frames through
    budget_s = None if own["budget_ms"] is None else finite_number("budget_ms", own["budget_ms"], least=0.1) / 1e3
    if own["api_key_file"] and not own["server"]:
        raise BadConfig("api_key_file: expected none without server=, which it is for")
    with ExitStack() as stack, _said_of_env():
        interrupt = stack.enter_context(Interrupt())
        pool = stack.enter_context(open_pool(config, 1))
        require_fits(control, pool.spec)
        recording = None if own["rerun"] is None else stack.enter_context(RerunRecording(own["rerun"]))
        out = stack.enter_context(report_folder(own["out"], read.folder))
        driver: Any
        if own["server"]:
            driver = _remote(own["server"], control, hz, read_api_key(own["api_key_file"]), budget_s)
        else:
            driver = Controller(read, hz=hz, budget_s=budget_s, planner=str(own["planner"]), seed=seed)
        driver.telemetry.first = "policy" if read.what == "policy" else "plan"
        stack.enter_context(driver)
        played, film = list[Played](), DriveFilm(pool.spec)
        timing = {"period_s": 1 / hz, "budget_s": max(budget_s or 0.0, TAKEN / hz)}
        while len(played) < episodes and interrupt.received is None:
            start = episode_seed(seed, SeedRank.EVALUATION, 0, len(played))
            played.append(
                _episode(driver, pool, control, seed=start, **timing, delay=delay, camera=camera, recording=recording,
                         film=None if played else film, stops=interrupt.is_set)
            )  # fmt: skip
        facts = {"hz": hz, "bundle": bundle, "sha256": read.sha256}
        return _results(out, driver, played, film, pool.spec, facts, received=interrupt.received)


def _episode(
    driver: Driver,
    pool: Pool,
    control: ControlSpec,
    *,
    seed: int,
    period_s: float,
    budget_s: float,
    delay: int,
    camera: tuple[int, int] | None,
    recording: RerunRecording | None,
    film: DriveFilm | None,
    stops: Callable[[], bool],
) -> Played:
    """One episode, or as much of it as `stops` lets: for every frame an action, for one that does not come too."""
    robot = Robot(pool, period_s=period_s, budget_s=budget_s, delay=delay, camera=camera)
    to_unit = ActionGate(control).unit
    driver.reset()
    driver.release()  # a simulated robot that begins anew has been seen to
    robot.begin(seed)
    frame = _next_frame(robot, -1, 120.0, stops)
    while frame is not None and not frame.is_last and not stops():
        action, status = driver.step(frame.observation, frame.stamp, frame.sequence)
        robot.act(frame.sequence, to_unit(action))
        if recording is not None:
            recording.add(frame.observation, action, status)
        if film is not None:
            film.add(frame.observation)
        last = frame
        frame = _next_frame(robot, last.sequence, 2 * period_s, stops)
        while frame is None and not stops():  # the camera is silent: the controller is asked all the same
            action, status = driver.step(None)
            if recording is not None:
                recording.add(None, action, status)
            frame = _next_frame(robot, last.sequence, period_s, stops)
    return robot.end(break_off=stops())


def _next_frame(robot: Robot, after: int, timeout_s: float, stops: Callable[[], bool]) -> Capture | None:
    """As the robot's, sooner where `stops` says so: a period may last minutes."""
    until = time.monotonic() + timeout_s
    frame = None
    while frame is None and not stops() and (left := until - time.monotonic()) > 0:
        frame = robot.next_frame(after, min(left, ASK_S))
    return frame


def _results(
    out: Path,
    driver: Driver,
    played: Sequence[Played],
    film: DriveFilm,
    spec: EnvSpec,
    facts: dict[str, Any],
    *,
    received: int | None,
) -> dict[str, Any]:
    """What is printed as the last line, written with everything else; raises BadConfig where no episode was whole.

    Args:
        out: the report's folder.
        driver: whose decisions they are.
        played: the episodes; of one that a signal broke off the decisions count, not the return.
        film: of the first one.
        spec: the environment's.
        facts: what is told of the bundle and the rate.
        received: the signal that ended the drive.
    """
    csv = str(driver.telemetry.write_csv(out / "decisions.csv"))  # the first: it is kept whatever comes
    returns = [one.total_return for one in played if one.finished]
    if not returns and received is None:
        raise BadConfig(f"env: every episode was cut short, the last by {played[-1].fault}; decisions are in {csv}")
    summary = driver.telemetry.summary()
    results = {
        "task": spec.task,
        "status": "finished" if received is None else "interrupted",
        "return_mean": float(np.mean(returns)) if returns else None,
        "return_ci95": mean_ci95(returns) if returns else None,
        "returns": returns,
        "episodes": len(returns),
        **summary,
        "frames_missing": summary["missing"],
        "missing": sum(one.missing for one in played),
        "overruns": sum(one.overruns for one in played),
        "faults": sum(bool(one.fault) for one in played),
        **facts,
        "csv": csv,
        "exit_code": 0 if received is None else 128 + received,
    }
    record = {**results, "versions": versions(), "when": time.strftime("%Y-%m-%d %H:%M:%S")}
    report = write_drive_report(out, record, driver.telemetry, episode=film.write(out, facts["hz"]))
    results["report"] = record["report"] = str(report)
    write_json(out / "drive.json", record)
    _show(results, driver.telemetry)
    return results


def _show(results: dict[str, Any], telemetry: Telemetry) -> None:
    """The results for a person, on standard error."""
    mean = "none, of no whole episode" if results["return_mean"] is None else three_digits(results["return_mean"])
    shown = ("decisions", "late", "missing", "fallbacks", "p50_ms", "p99_ms", "p999_ms", "report")
    rows = {"return_mean": mean, **{key: "none" if results[key] is None else str(results[key]) for key in shown}}
    if results["late"] > OFTEN * results["decisions"] and not runs_first():
        rows["advice"] = "realtime=true runs this before the machine's other processes"
    if stopped := results["sources"]["stopped"]:
        first = next((row.message for row in telemetry.rows if row.source == "stopped"), "")
        rows["stopped"] = f"{stopped} decisions, the first by {first or 'late or missing actions'}"
    show_facts(results["task"], rows)


@contextmanager
def _said_of_env() -> Iterator[None]:
    """Say of `env`, this command's name for the configuration's `task`, what is wrong with that."""
    try:
        yield
    except (BadConfig, UnknownTask) as error:
        if error.key != "task":
            raise
        raise type(error)(error.said, key="env") from error


def _like_training(spec: EnvSpec, env: str, overrides: Sequence[str]) -> list[str]:
    """What the bundle's agent was trained with, for an environment that can be given it, perhaps one of `parts=`."""
    options = load_config([f"task={env}", *(text for text in overrides if text.startswith("parts="))])["task"]["env"]
    wanted: dict[str, Any] = {"action_repeat": spec.action_repeat}
    sides = {side for shape in spec.images.values() for side in shape[1:]}
    if len(sides) == 1:
        wanted["size"] = sides.pop()
    # one decision a step is what environments do that have no such option
    given = {key: value for key, value in wanted.items() if key in options or (key == "action_repeat" and value != 1)}
    found = [f"++task.env.{key}={value}" for key, value in given.items()]
    look = [f"task.env.look={spec.look}"] if spec.look in ("suite", "fast") and "look" in options else []
    return found + look


def require_fits(control: ControlSpec, spec: EnvSpec) -> None:
    """Raise DeviceDiffers where an environment shows, or takes, something else than the bundle's robot."""
    for fact, mine, other in control.env.differences(spec, UNITS):
        raise DeviceDiffers(f"env.{fact}: the bundle has {mine}, the environment {other}")


def _remote(server: str, control: ControlSpec, hz: float, api_key: str | None, budget_s: float | None = None) -> Any:
    try:
        from websockets.exceptions import WebSocketException

        from trainers.deployment.openpi_codec import BadMessage
        from trainers.deployment.remote_controller import RemoteController
    except ModuleNotFoundError as error:
        raise BadConfig(f"server: expected {error.name} to be installed: pip install 'worldmodel[deploy]'") from error
    try:
        return RemoteController(server, control, hz=hz, api_key=api_key, budget_s=budget_s)
    except (OSError, TimeoutError, WebSocketException, BadMessage) as error:
        raise BadConfig(f"server: expected ws://host:port of trainers.serve, got {server} ({error})") from error


def _camera(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    width, _, height = text.partition("x")
    if not (width.isdecimal() and height.isdecimal() and 1 <= int(width) <= 4096 and 1 <= int(height) <= 4096):
        raise BadConfig(f"camera: expected WIDTHxHEIGHT such as 640x480, got {text!r}")
    return int(height), int(width)
