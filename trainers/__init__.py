"""Commands, and `load_agent` for use from Python."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trainers.acting.trained_agent import load_agent as load_agent


def __getattr__(name: str) -> Any:
    # torch is loaded by whoever asks for it, not by every command
    if name != "load_agent":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from trainers.acting.trained_agent import load_agent

    return load_agent
