"""Controller calls around which everything lies, slow models, killed planners, and damaged bundles.

No action may be missing, not finite, out of bounds or faster than allowed, and no exception may come out.
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from tests.rigs.hostile_robot import HORIZON, Agent, Camera, Liar, Planner, robots
from tests.rigs.tiny_bundle import tiny_bundle
from trainers.bundle.bundle import read_bundle
from trainers.bundle.control_spec import ControlSpec
from trainers.deployment.controller import SHARE, Controller
from trainers.deployment.planner_messages import Sizes
from trainers.deployment.planner_watchdog import PlannerProcess
from trainers.process.realtime import realtime as run_first
from worldmodel.errors import UserError


def measure(
    *,
    calls: int = 100_000,
    slow_calls: int = 500,
    kills: int = 10,
    flips: int = 1000,
    seed: int = 0,
    hz: float = 20.0,
    busy: int = 2,
    realtime: int = 0,
) -> dict[str, Any]:
    """Counts; what is wrong must be 0."""
    results: dict[str, Any] = {}
    if calls:
        results |= attack(calls, seed)
    with tempfile.TemporaryDirectory() as folder:
        if slow_calls:
            results |= slow(Path(folder), slow_calls, seed, hz=hz, busy=busy, first=bool(realtime))
        if kills:
            results |= kill(Path(folder), kills, seed, hz=hz)
        if flips:
            results |= flip(Path(folder), flips, seed)
    return results


def attack(calls: int, seed: int) -> dict[str, Any]:
    """Calls shared equally by robots of every kind of bounds."""
    start, found, sources = time.perf_counter(), Counter[str](), Counter[str]()
    kinds = robots()
    for name, control in kinds.items():
        rng = np.random.default_rng([seed, len(found)])
        lie = Liar(rng)
        controller = _controller(control, lie, Planner(rng))
        camera, last = Camera(rng), None
        for n in range(-(-calls // len(kinds))):
            found["calls"] += 1
            if rng.random() < 0.02:
                controller.reset()
                last = None
            if controller.stopped and rng.random() < 0.2:
                controller.release()
            seen = camera.take(time.monotonic())
            try:
                action, status = controller.step(seen.observation, seen.stamp, seen.sequence)
            except BaseException as error:  # noqa: BLE001 - it is what must not happen
                found["exceptions"] += 1
                print(f"{name}, call {n}: {type(error).__name__}: {error}", flush=True)
                continue
            sources[status.source] += 1
            for key in _wrong(action, control, last):
                found[key] += 1
            last = action if np.shape(action) == (2,) else None
    wrong = ("exceptions", "shape", "nonfinite", "out_of_bounds", "too_fast")
    counts = {key: found[key] for key in ("calls", *wrong)}
    return {**counts, "sources": dict(sources), "attack_s": round(time.perf_counter() - start, 1)}


def _controller(control: ControlSpec, lie: Liar, planner: Planner) -> Controller:
    bundle = SimpleNamespace(control=control, what="both", build=lambda: Agent(lie, discrete=control.env.discrete))
    rng, lie.rng = lie.rng, np.random.default_rng(0)
    lie.rng = SimpleNamespace(random=lambda: 1.0)  # type: ignore[assignment]  # honest while it warms up
    controller = Controller(_as_bundle(bundle), planner=planner)
    lie.rng = rng
    assert len(controller._plan) == HORIZON
    return controller


def _as_bundle(fake: Any) -> Any:
    """A bundle that no folder holds; `Controller` asks for its kind."""
    from trainers.bundle.bundle import Bundle

    class Fake(Bundle):
        def build(self) -> Any:
            return fake.build()

    return Fake(fake.control, fake.what, {}, {}, "", {}, {}, Path())


def _wrong(action: Any, control: ControlSpec, last: Any) -> list[str]:
    if control.env.discrete:
        good = isinstance(action, np.ndarray) and action.shape == () and action.dtype == np.int64
        return [] if good and 0 <= int(action) < control.env.action_dim else ["shape"]
    if not isinstance(action, np.ndarray) or action.shape != (2,) or action.dtype != np.float32:
        return ["shape"]
    exact, (low, high) = action.astype(np.float64), control.bounds
    found = [] if np.isfinite(exact).all() else ["nonfinite"]
    # where no float32 lies between two bounds, the nearest one is what there is
    room = np.spacing(np.float32(low)) * (np.float32(low) >= np.float32(high))
    found += (
        [] if (exact >= np.array(low) - room).all() and (exact <= np.array(high) + room).all() else ["out_of_bounds"]
    )
    if control.max_change is not None and last is not None:
        change = np.abs(exact - last.astype(np.float64))
        found += [] if (change <= np.array(control.max_change) + np.spacing(np.abs(action)) * 2).all() else ["too_fast"]
    return found


class SlowProcess(PlannerProcess):
    """A planner whose model is slow at random."""

    program = "tests.rigs.slow_planner"


def slow(folder: Path, calls: int, seed: int, *, hz: float, busy: int, first: bool) -> dict[str, Any]:
    """A model that takes up to ten times as long at random, beside busy processes; `first`: before them."""
    path, rng = tiny_bundle(folder / "slow"), np.random.default_rng(seed)
    bundle = read_bundle(path)
    agent, budget_s = bundle.build(), SHARE / hz
    options = {"sha256": bundle.sha256, "sizes": Sizes.of(agent), "budget_s": budget_s, "hang_s": max(1.0, 10 / hz)}
    with _busy(busy), run_first(first), closing(SlowProcess(path, **options)) as process:
        controller = Controller(bundle, planner=process, hz=hz, budget_s=budget_s)
        missing, times, sources = 0, [], Counter[str]()
        tick = time.monotonic()
        for _ in range(calls):
            start = time.monotonic()
            action, status = controller.step(rng.integers(0, 256, (16, 16, 3), np.uint8), start)
            times.append(time.monotonic() - start)
            missing += not np.isfinite(action).all() or status.source in ("safe", "stopped")
            sources[status.source] += 1
            tick += 1 / hz
            time.sleep(max(0.0, tick - time.monotonic()))
        late = sum(seconds > 1 / hz for seconds in times)
        ms = 1e3 * np.array(times)
        quantiles = {f"slow_{name}_ms": round(float(np.percentile(ms, q)), 2) for name, q in _QUANTILES.items()}
        counts = {"slow_calls": calls, "slow_missing": missing, "slow_late": late, "slow_sources": dict(sources)}
        return {**counts, **quantiles}


@contextmanager
def _busy(count: int) -> Iterator[None]:
    """Beside as many processes that never wait."""
    hogs = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for hog in hogs:
            hog.kill()
            hog.wait()


_QUANTILES = {"p50": 50, "p99": 99, "p999": 99.9}


def kill(folder: Path, kills: int, seed: int, *, hz: float) -> dict[str, Any]:
    """A planner's process killed or stopped at random; what the robot gets meanwhile."""
    rng, sources, over = np.random.default_rng(seed), Counter[str](), 0
    with Controller(tiny_bundle(folder / "killed"), hz=hz) as controller:
        process = controller.planner
        assert isinstance(process, PlannerProcess)
        begun = recovered = steps = 0
        tick, end = time.monotonic(), time.monotonic() + 60.0 * kills + 60
        while recovered < kills and time.monotonic() < end:
            if begun == recovered and rng.random() < 0.05:
                os.kill(process.pid or 0, signal.SIGKILL if rng.random() < 0.5 else signal.SIGSTOP)
                begun += 1
            start = time.monotonic()
            action, status = controller.step(rng.integers(0, 256, (16, 16, 3), np.uint8), start)
            over += time.monotonic() - start > 2 / hz
            assert np.isfinite(action).all()
            sources[status.source] += 1
            steps += 1
            if process.restarts == begun and process.ready:
                recovered = begun
            tick += 1 / hz
            time.sleep(max(0.0, tick - time.monotonic()))
    lost = sources["safe"] + sources["stopped"]
    return {
        **{"kills": begun, "kills_recovered": recovered, "kill_steps": steps},
        **{"kill_over_two_periods": over, "kill_without_plan_or_policy": lost, "kill_sources": dict(sources)},
    }


def flip(folder: Path, flips: int, seed: int) -> dict[str, Any]:
    """One random bit, cut or missing file of a bundle at a time; all must be refused."""
    whole, rng, accepted = tiny_bundle(folder / "flipped"), np.random.default_rng(seed), 0
    files = sorted(path.name for path in whole.iterdir())
    for n in range(flips):
        copy = folder / f"copy-{n}"
        shutil.copytree(whole, copy)
        path = copy / files[n % len(files)]
        content, kind = bytearray(path.read_bytes()), int(rng.integers(20))
        place = int(rng.integers(len(content)))
        if kind == 0:
            path.unlink()
        elif kind == 1:
            path.write_bytes(content[:place])
        else:
            content[place] ^= 1 << int(rng.integers(8))
            path.write_bytes(content)
        try:
            read_bundle(copy)
            accepted += 1
        except UserError:
            pass
        shutil.rmtree(copy)
    return {"flips": flips, "flips_accepted": accepted}
