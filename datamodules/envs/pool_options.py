"""What a pool opens: which environment, how often, how long it may take, and what counts as a fault."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from datamodules.envs.errors import BadOption
from datamodules.envs.fault_limit import FaultLimit


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolOptions:
    """`count` environments that `source`'s make builds from `kwargs`, seen through `visuals`; raises BadOption.

    A worker is lost once it fails more than `max_restarts` times within `restart_window_s` seconds. It proves at its
    start, on an episode of its own, that it draws more than one constant colour; later, `blank_frames` such frames in
    a row are a fault, and so are equal frames while `frozen_frames` different states go by in an environment that
    tells its state (0: never).
    """

    source: str
    kwargs: Mapping[str, Any]
    visuals: Mapping[str, Any] | None = None
    count: int
    seed: int = 0
    step_timeout_s: float = 30.0
    reset_timeout_s: float = 120.0
    max_restarts: int = 3
    restart_window_s: float = 300.0
    blank_frames: int = 5
    frozen_frames: int = 20

    def __post_init__(self) -> None:
        if self.count < 1:
            raise BadOption(f"count: expected >= 1, got {self.count}")

    def fault_limit(self) -> FaultLimit:
        """A fresh count of restarts."""
        return FaultLimit(most=self.max_restarts, window_s=self.restart_window_s)

    def worker_config(self, *, lanes: int) -> dict[str, Any]:
        """What a worker is told; lanes: 0 for a single environment."""
        return {
            "source": self.source,
            "kwargs": dict(self.kwargs),
            "visuals": dict(self.visuals or {}),
            "blank_frames": self.blank_frames,
            "frozen_frames": self.frozen_frames,
            "lanes": lanes,
        }
