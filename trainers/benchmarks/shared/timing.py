"""Timing that a noisy machine disturbs least, and synthetic inputs to time on."""

import time
from collections.abc import Callable, Collection
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from datamodules.envs.protocol import Envs, Fault, Step
from datamodules.envs.seeds import episode_seed
from datamodules.observation import empty, image_bytes
from datamodules.replay import Replay
from trainers.training.module import WorldModelModule
from worldmodel.interfaces import Batch
from worldmodel.spec import EnvSpec


def alternate(one: Callable[[int], Any], two: Callable[[int], Any], repeats: int) -> tuple[Any, Any]:
    """Seconds of each call, taken in turns so that a noisy machine disturbs both alike; three are warm-up."""
    seconds = np.zeros((2, repeats + 3))
    for k in range(repeats + 3):
        for row, call in enumerate((one, two)):
            start = time.perf_counter()
            call(k)
            seconds[row, k] = time.perf_counter() - start
    return seconds[0, 3:], seconds[1, 3:]


def median_ms(seconds: Any) -> float:
    """Median of seconds, in milliseconds."""
    return float(1e3 * np.median(seconds))


def playing(pool: Envs, indices: Collection[int]) -> Callable[[NDArray[np.float32]], list[Step]]:
    """Begin episodes; each call steps what has answered by its row of actions [N, A] and gives what arrives.

    Episodes that end begin again. Raises RuntimeError for an environment that fails.
    """
    pool.reset({index: episode_seed(0, 0, index, 0) for index in indices})
    ready = set(indices)

    def play(actions: NDArray[np.float32]) -> list[Step]:
        arrived = pool.step({index: actions[index] for index in sorted(ready)})
        ready.clear()
        ended, steps = {}, []
        for index, step in arrived.items():
            if isinstance(step, Fault):
                raise RuntimeError(f"environment {index}: {step.kind}: {step.message}")
            ready.add(index)
            steps.append(step)
            if step.is_last:
                ended[index] = episode_seed(0, 0, index, 0)
        if ended:
            pool.reset(ended)
        return steps

    return play


def synthetic_spec(config: dict[str, Any], *, action_dim: int) -> EnvSpec:
    """What the configured task would draw, without opening it."""
    size, repeat = config["task"]["env"].get("size", 64), config["task"]["env"].get("action_repeat", 1)
    return EnvSpec("synthetic", {"pixels": (3, size, size)}, action_dim, repeat, 1000, terminates=False)


def in_bf16(config: dict[str, Any]) -> bool:
    """Whether a run makes its products in bfloat16."""
    return str(config["trainer"]["precision"]).startswith("bf16")


def autocast(config: dict[str, Any], device: torch.device) -> AbstractContextManager[Any]:
    """The precision that a run trains in, without the cache of cast weights."""
    return torch.autocast(device.type, torch.bfloat16, enabled=in_bf16(config), cache_enabled=False)


def without_trainer(module: WorldModelModule) -> torch.optim.Optimizer:
    """The module's optimiser, with which it makes updates outside of a trainer from now on."""
    optimizer = module.configure_optimizers()
    module.optimizers = lambda **_: optimizer  # type: ignore[method-assign, assignment, misc]
    module.manual_backward = lambda loss: loss.backward()  # type: ignore[method-assign, assignment, misc]
    return optimizer


def training_step(config: dict[str, Any], module: WorldModelModule, device: torch.device) -> Callable[[Batch], None]:
    """One update of the module's agent on a batch, as Lightning runs it, finished when it returns."""
    optimizer = without_trainer(module)

    def update(batch: Batch) -> None:
        with autocast(config, device):  # all of it
            module.gradients(batch)
        module.apply_gradients(optimizer)
        if device.type == "cuda":
            torch.cuda.synchronize()

    return update


def random_batch(spec: EnvSpec, batch: int, length: int) -> Batch:
    """Windows [batch, length] of noise inside an episode."""
    flags = torch.zeros(batch, length, dtype=torch.bool)
    return Batch(
        observation={"pixels": torch.randint(0, 256, (batch, length, *spec.pixels), dtype=torch.uint8)},
        action=torch.rand(batch, length, spec.action_dim) * 2 - 1,
        reward=torch.rand(batch, length),
        is_first=flags,
        is_last=flags,
        is_terminal=flags,
    )


def filled_replay(spec: EnvSpec, rows: int) -> Replay:
    """A replay in memory of `rows` rows of noise, 500 an episode."""
    replay = Replay(spec=spec, capacity=rows)
    rng, still = np.random.default_rng(0), np.zeros(spec.action_dim, np.float32)
    noise = {name: rng.integers(0, 256, shape, np.uint8) for name, shape in spec.images.items()}
    for t in range(rows):
        replay.append(0, Step(empty(spec) | noise, 0.0, t % 500 == 0, t % 500 == 499, False, 1), still)
    return replay


def contiguous_gather(spec: EnvSpec, rows: int, batch: int, length: int) -> Callable[[], Any]:
    """A copy of `batch` random windows of contiguous images: the fewest bytes that a replay could move."""
    rng = np.random.default_rng(1)
    frames = rng.integers(0, 256, (rows, image_bytes(spec)), np.uint8)

    def gather() -> Any:
        return np.concatenate([frames[s : s + length] for s in rng.integers(0, rows - length, batch)])

    return gather
