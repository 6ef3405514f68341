"""How a data set stores its rows, as the options that every format takes say it."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from datamodules.formats.protocol import FormatError, reading
from worldmodel.spec import EnvSpec

ALIGNMENTS = ("arrival", "departure")
MAX_DISCRETE = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class RowOptions:
    """Options of a URI that every format takes: how its rows are stored.

    Args:
        alignment: "arrival" (row t holds the action that led to frame t, and the reward that came with it) or
            "departure" (row t holds the action taken at frame t, and what it led to).
        actions: the same for actions alone, where rewards and flags are stored otherwise; "": as alignment.
        last: by departure without a frame after the last action, "drop" leaves that action out with its reward and
            termination, "repeat" shows the last frame once more.
        low, high: bounds of the stored actions, "-2" or "-2,-1,0", scaled to [-1, 1]; "": they are in [-1, 1].
        action_repeat: env_steps of a row; 0: as a writer left it, or 1.
        discrete: how many actions there are where they are stored as integers [T]; they become one-hot.
        image_scale: what float frames are multiplied with to be in 0..255; 0: they are refused.
        terminal_key: the array that marks termination, "none" for no array; "": by the names in FIELDS.
        task: name of the task; "": as a writer left it, or the folder's name.
    """

    alignment: str = "arrival"
    actions: str = ""
    last: str = "drop"
    low: str = ""
    high: str = ""
    action_repeat: int = 0
    discrete: int = 0
    image_scale: float = 0.0
    terminal_key: str = ""
    task: str = ""

    def convention(self, stored: EnvSpec | None = None) -> "Convention":
        """The options checked and parsed.

        Args:
            stored: the spec that a writer left, for what the options do not say.

        Raises:
            FormatError: for a value that means nothing; names the option.
        """
        for name, alignment in (("alignment", self.alignment), ("actions", self.actions or self.alignment)):
            if alignment not in ALIGNMENTS:
                raise FormatError(f"{name}: expected {' or '.join(ALIGNMENTS)}, got {alignment!r}")
        departs = self.alignment == (self.actions or self.alignment) == "departure"
        if self.last not in (known := ("drop", "repeat") if departs else ("drop",)):
            more = "" if departs else ", for repeat says what to do with an action by departure"
            raise FormatError(f"last: expected {' or '.join(known)}{more}, got {self.last!r}")
        repeat = self.action_repeat or (stored.action_repeat if stored else 1)
        if repeat < 1:
            raise FormatError(f"action_repeat: expected 1 or more, got {repeat}")
        if not 0 <= self.discrete <= MAX_DISCRETE:
            raise FormatError(f"discrete: expected 0..{MAX_DISCRETE} actions, got {self.discrete}")
        if not 0 <= self.image_scale <= 255:
            raise FormatError(f"image_scale: expected a number in [0, 255], got {self.image_scale}")
        low, high = (_bound(name, text) for name, text in (("low", self.low), ("high", self.high)))
        if (low is None) != (high is None):
            raise FormatError(f"low and high: expected both or neither, got low={self.low!r} high={self.high!r}")
        if low is not None and high is not None:
            if len(low) != len(high) and 1 not in (len(low), len(high)):
                raise FormatError(f"low and high: expected as many of both, got {len(low)} and {len(high)}")
            if not (low < high).all():
                raise FormatError(f"low and high: expected low < high, got low={self.low!r} high={self.high!r}")
        return Convention(
            self.alignment, self.actions or self.alignment, low, high, repeat, self.discrete, 0, self.image_scale,
            self.last == "repeat",
        )  # fmt: skip


BY_ARRIVAL, BY_DEPARTURE, BY_LAYOUT = (RowOptions(alignment=each) for each in (*ALIGNMENTS, ""))


@dataclass(frozen=True, slots=True)
class Convention:
    """How a data set stores rows; see RowOptions. first_action: the integer that stands for the first discrete one."""

    alignment: str = "arrival"
    actions: str = "arrival"
    low: NDArray[np.float64] | None = None
    high: NDArray[np.float64] | None = None
    action_repeat: int = 1
    discrete: int = 0
    first_action: int = 0
    image_scale: float = 0.0
    repeat_last: bool = False

    @property
    def departs(self) -> bool:
        """Whether rewards and flags are stored in the row of the action that led to them."""
        return self.alignment == "departure"


def _bound(name: str, text: str) -> NDArray[np.float64] | None:
    if not text:
        return None
    with reading(f"{name}: expected numbers such as -2 or -2,-1, got {text!r}", (ValueError,)):
        values = np.array([float(part) for part in text.split(",")])
    if not np.isfinite(values).all():
        raise FormatError(f"{name}: expected finite numbers, got {text!r}")
    return values
