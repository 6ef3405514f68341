"""What is known of a run while it learns."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Status:
    """The last known state of a run; None where nothing is known yet."""

    env_steps: int = 0
    total_env_steps: int | None = None
    decisions: int | None = None
    updates: int | None = None
    total_updates: int | None = None  # where the run's length is counted in updates
    phase: str | None = None
    train_return: float | None = None
    eval_return: float | None = None
    loss: float | None = None
    held_out: float | None = None  # error on held-out episodes
    updates_per_s: float | None = None

    @property
    def counts_updates(self) -> bool:
        """Whether the run is as long as its updates, not as its env_steps."""
        return self.total_updates is not None

    @property
    def position(self) -> int:
        """How far the run is."""
        return (self.updates or 0) if self.counts_updates else self.env_steps

    @property
    def unit(self) -> str:
        """What is counted."""
        return "updates" if self.counts_updates else "env steps"

    @property
    def total(self) -> int | None:
        """How long the run is."""
        return self.total_updates if self.counts_updates else self.total_env_steps
