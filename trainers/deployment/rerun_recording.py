"""What a controller saw and did, as a recording for the Rerun viewer (rerun.io), written while it acts."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np

from datamodules.envs.errors import MissingPackage
from trainers.deployment.status import Status
from worldmodel.errors import UserError

NUMBERS = ("latency_ms", "margin_ms", "filter_ms", "plan_age", "predicted_return", "prediction_error", "disagreement")
# all of which is logged
NOTHING = Status(
    number=0,
    source="plan",
    observation="ok",
    late=True,
    latency_ms=0.0,
    margin_ms=0.0,
    filter_ms=0.0,
    plan_age=0,
    faults=0,
    limited=True,
    predicted_return=0.0,
    prediction_error=0.0,
    disagreement=0.0,
    alarm=True,
    message="nothing",
)


class FileInTheWay(UserError):
    """A recording would replace a file, or cannot be written."""


class RerunRecording:
    """One `.rrd` file: images and vectors as observed, actions in the robot's units, and every decision's status.

    Timelines are `decision`, counted over all episodes, and `episode`; the package adds the wall clock. What is
    logged is written by a thread of the package, so call `add` when the action is on its way.

    Args:
        path: of the file, in a folder that is made where there is none.

    Raises:
        MissingPackage: without the package `rerun-sdk`.
        FileInTheWay: where the file is there already, or cannot be written.
    """

    def __init__(self, path: Path | str) -> None:
        try:
            import rerun
        except ModuleNotFoundError as error:
            raise MissingPackage(
                f"rerun: expected the package rerun-sdk, got {error}: pip install rerun-sdk"
            ) from error
        self.path = Path(path).expanduser()
        if self.path.exists():
            raise FileInTheWay(f"rerun: expected a new file, got {self.path}, which is there already")
        self._rerun: Any = rerun
        self._begin()
        # a first row takes the package half a second, which a robot does not have: one that is let go
        self.add(
            {"image": np.zeros((1, 1, 3), np.uint8), "stack": np.zeros((1, 1, 9)), "vector": np.zeros(1)}, 0, NOTHING
        )
        self._begin()
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.touch(exist_ok=False)
        except OSError as error:
            raise FileInTheWay(f"rerun: expected a file that can be written, got {path} ({error.strerror})") from error
        self._stream.save(self.path)

    def _begin(self) -> None:
        self._stream = self._rerun.RecordingStream("worldmodel")
        self._decisions, self._episode, self._source = 0, -1, ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def add(self, observation: Mapping[str, Any] | Any | None, action: Any, status: Status) -> None:
        """Log one decision.

        Args:
            observation: by name, images [height, width, channels] uint8 and vectors [d]; one image alone; or None
                where no frame came.
            action: [A] as sent, or a discrete action's number.
            status: of the controller's step.
        """
        self._episode += status.number == 0
        self._stream.set_time("decision", sequence=self._decisions)
        self._stream.set_time("episode", sequence=self._episode)
        self._decisions += 1
        named = observation if isinstance(observation, Mapping) else {"pixels": observation}
        for name, value in named.items():
            if value is not None:
                self._log_observed(f"observation/{name}", np.asarray(value))
        self._stream.log("action", self._rerun.Scalars(np.atleast_1d(np.asarray(action, np.float64))))
        for name in NUMBERS:
            number = float(getattr(status, name))
            if math.isfinite(number):  # NaN says that there is none
                self._stream.log(f"controller/{name}", self._rerun.Scalars(number))
        self._log_events(status)

    def close(self) -> None:
        """Write what is left and let go of the file."""
        self._stream.flush()
        self._stream.disconnect()

    def _log_observed(self, entity: str, value: np.ndarray) -> None:
        image = value.ndim == 3 and value.shape[-1] in (1, 3, 4)
        if image:
            shown = value[..., 0] if value.shape[-1] == 1 else value
            self._stream.log(entity, self._rerun.Image(shown))
        elif value.ndim == 3:  # of stacked frames, the channels of each
            self._stream.log(entity, self._rerun.Tensor(value))
        else:
            self._stream.log(entity, self._rerun.Scalars(value.astype(np.float64).ravel()))

    def _log_events(self, status: Status) -> None:
        """Where another source chooses than before, and what went wrong, as lines of text."""
        if status.source != self._source or status.message:
            level = self._rerun.TextLogLevel
            grave = {"safe": level.WARN, "stopped": level.ERROR}
            text = f"{status.source}: {status.message}" if status.message else status.source
            self._stream.log("controller/events", self._rerun.TextLog(text, level=grave.get(status.source, level.INFO)))
        self._source = status.source
        for name in ("late", "limited", "alarm"):
            if getattr(status, name):
                self._stream.log(f"controller/{name}", self._rerun.TextLog(name, level=self._rerun.TextLogLevel.WARN))
