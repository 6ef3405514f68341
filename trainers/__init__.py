"""Commands, and `load_agent` for use from Python."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trainers.acting.trained_agent import TrainedAgent


def load_agent(run: Any, **options: Any) -> "TrainedAgent":
    """The agent of a run folder; see `trainers.acting.trained_agent.load_agent`, which loads torch."""
    from trainers.acting.trained_agent import load_agent as load

    return load(run, **options)
