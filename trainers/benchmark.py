"""Measure: `python -m trainers.benchmark env|replay|update|act`; the last line of standard output is JSON."""

import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from datamodules.envs.pool import Fault, episode_seed
from datamodules.envs.protocol import Step
from datamodules.replay import Replay
from trainers import build
from trainers.configuration import BadConfig, load_config
from trainers.entry import run
from worldmodel.interfaces import Batch
from worldmodel.spec import EnvSpec

USAGE = """python -m trainers.benchmark env|replay|update|act [threads=1] [repeats=N] [key=value ...]

  env      decisions per second of one environment with rendering, through its worker (default action repeat 2)
  replay   a 50x50 batch of 64x64x3 frames from 100k, beside a contiguous numpy gather of the same bytes
  update   one training update of the configured agent; shapes=planet for Kaixhin/PlaNet's (5.1 M parameters, 16 x 64)
  act      one decision: encode, filter, plan; envs=N for a batch of environments

Any key of configs/fit.yaml can follow, trainer.precision=bf16-mixed for update among them."""

REPEATS = {"env": 1500, "replay": 60, "update": 10, "act": 40}


def main(arguments: Sequence[str]) -> dict[str, Any]:
    """Run one benchmark; returns what is printed as the last line."""
    if not arguments or arguments[0] not in MEASURES:
        raise BadConfig(
            f"expected one of {', '.join(MEASURES)}, got {arguments[0] if arguments else 'nothing'}; see --help"
        )
    what, rest = arguments[0], list(arguments[1:])
    own = {"threads": "1", "repeats": str(REPEATS[what]), "envs": "1", "shapes": "configured"}
    for text in list(rest):
        key, _, value = text.partition("=")
        if key in own:
            own[key] = value
            rest.remove(text)
    torch.set_num_threads(int(own["threads"]))
    torch.set_flush_denormal(True)  # as training does
    result = MEASURES[what](rest, repeats=int(own["repeats"]), envs=int(own["envs"]), shapes=own["shapes"])
    return {"benchmark": what, "threads": int(own["threads"]), "torch": torch.__version__, **result}


def measure_env(overrides: list[str], *, repeats: int, envs: int, shapes: str) -> dict[str, Any]:
    """Decisions per second of a pool, random actions, the first episode not counted."""
    config = load_config(["task.env.action_repeat=2", *overrides] if not _has_task(overrides) else overrides)
    rng = np.random.default_rng(0)
    with build.open_pool(config, envs) as pool:
        seeds = {i: episode_seed(0, 0, i, 0) for i in range(envs)}
        actions = rng.uniform(-1, 1, (repeats, envs, pool.spec.action_dim)).astype(np.float32)
        _steps(pool, seeds, actions[:50])
        start = time.perf_counter()
        env_steps = _steps(pool, seeds, actions)
        seconds = time.perf_counter() - start
        spec = pool.spec
    return {
        "task": spec.task,
        "decisions_per_s": repeats * envs / seconds,
        "env_steps_per_s": env_steps / seconds,
        "action_repeat": spec.action_repeat,
        "look": spec.look,
        "backend": spec.backend,
        "envs": envs,
    }


def measure_replay(overrides: list[str], *, repeats: int, envs: int, shapes: str) -> dict[str, Any]:
    """A 50x50 sample from 100k rows, alternating with a gather of as many contiguous rows."""
    rows, side = 100_000, 50
    spec = EnvSpec(task="synthetic", pixels=(3, 64, 64), action_dim=1, action_repeat=1, episode_steps=500)
    replay = Replay(spec=spec, capacity=rows, streams=1)
    frame = np.random.default_rng(0).integers(0, 256, spec.pixels, np.uint8)
    for t in range(rows):
        step = Step(frame, 0.0, t % 500 == 0, t % 500 == 499, False, 1)
        replay.append(0, step, np.zeros(1, np.float32))
    frames = np.random.default_rng(1).integers(0, 256, (rows, 3 * 64 * 64), np.uint8)
    starts = np.random.default_rng(2).integers(0, rows - side, (repeats + 3, side))

    def gather(k: int) -> None:
        np.concatenate([frames[s : s + side] for s in starts[k]])

    ours, theirs = _alternate(lambda k: replay.sample(side, side), gather, repeats)
    return {
        "batch_ms": _median_ms(ours),
        "gather_ms": _median_ms(theirs),
        "p99_ms": float(1e3 * np.quantile(ours, 0.99)),
    }


def measure_update(overrides: list[str], *, repeats: int, envs: int, shapes: str) -> dict[str, Any]:
    """One update (losses, backward, clip, optimiser) on random frames."""
    if shapes == "planet":
        overrides = ["experiment=planet_shapes", *overrides]
    config = load_config(overrides)
    spec = _synthetic_spec(config, action_dim=6 if shapes == "planet" else 1)
    agent = build.build_agent(config, spec)
    module = build.build_module(config, agent)
    optimizer = module.configure_optimizers()
    batch = _random_batch(spec, config["data"]["batch"], config["data"]["length"])
    bf16 = str(config["trainer"]["precision"]).startswith("bf16")

    def update(_: int) -> None:
        # as Lightning runs a step: all of it within autocast, without the cache of cast weights
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16, cache_enabled=False):
            loss = agent.losses(batch)
            optimizer.zero_grad()
            loss.total.backward()
        module.apply_gradients(optimizer)

    seconds, _ = _alternate(update, lambda k: None, repeats)
    return {
        "update_ms": _median_ms(seconds),
        "params": sum(p.numel() for p in agent.parameters() if p.requires_grad),
        "batch": [config["data"]["batch"], config["data"]["length"], *spec.pixels],
        "precision": config["trainer"]["precision"],
    }


def measure_act(overrides: list[str], *, repeats: int, envs: int, shapes: str) -> dict[str, Any]:
    """One decision of the configured agent for `envs` environments at once."""
    config = load_config(overrides)
    spec = _synthetic_spec(config, action_dim=1)
    agent = build.build_agent(config, spec).eval()
    carry, is_first = agent.initial_carry(envs), torch.zeros(envs, dtype=torch.bool)
    pixels = torch.randint(0, 256, (envs, *spec.pixels), dtype=torch.uint8)

    def act(_: int) -> None:
        with torch.inference_mode():
            agent.act(pixels, is_first, carry)

    seconds, _ = _alternate(act, lambda k: None, repeats)
    return {"decision_ms": _median_ms(seconds), "envs": envs, "planner": config["planner"]}


def _steps(pool: Any, seeds: dict[int, int], actions: Any) -> int:
    """Step all environments through the actions, resetting at every end; returns the env_steps."""
    pool.reset(seeds)
    total = 0
    for row in actions:
        arrived = pool.step(dict(enumerate(row)))
        ended = {}
        for index, step in arrived.items():
            if isinstance(step, Fault):
                raise RuntimeError(f"worker {index}: {step.kind}: {step.message}")
            total += step.env_steps
            if step.is_last:
                ended[index] = seeds[index]
        if ended:
            pool.reset(ended)
    return total


def _has_task(overrides: list[str]) -> bool:
    return any(text.startswith(("task=", "experiment=", "task.env.action_repeat=")) for text in overrides)


def _synthetic_spec(config: dict[str, Any], *, action_dim: int) -> EnvSpec:
    size, repeat = config["task"]["env"].get("size", 64), config["task"]["env"].get("action_repeat", 1)
    return EnvSpec("synthetic", (3, size, size), action_dim, repeat, 1000)


def _random_batch(spec: EnvSpec, batch: int, length: int) -> Batch:
    flags = torch.zeros(batch, length, dtype=torch.bool)
    return Batch(
        pixels=torch.randint(0, 256, (batch, length, *spec.pixels), dtype=torch.uint8),
        action=torch.rand(batch, length, spec.action_dim) * 2 - 1,
        reward=torch.rand(batch, length),
        is_first=flags,
        is_last=flags,
        is_terminal=flags,
    )


def _alternate(one: Callable[[int], Any], two: Callable[[int], Any], repeats: int) -> tuple[Any, Any]:
    """Seconds of each call, taken in turns so that a noisy machine disturbs both alike; three are warm-up."""
    seconds = np.zeros((2, repeats + 3))
    for k in range(repeats + 3):
        for row, call in enumerate((one, two)):
            start = time.perf_counter()
            call(k)
            seconds[row, k] = time.perf_counter() - start
    return seconds[0, 3:], seconds[1, 3:]


def _median_ms(seconds: Any) -> float:
    return float(1e3 * np.median(seconds))


MEASURES = {"env": measure_env, "replay": measure_replay, "update": measure_update, "act": measure_act}

if __name__ == "__main__":
    sys.exit(run(main, usage=USAGE))
