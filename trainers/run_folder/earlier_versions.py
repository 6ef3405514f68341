"""Checkpoints that earlier versions wrote, under the names of this one: the only place that knows them."""

from typing import Any

# when one image was all that was observed, its parts were the agent's own; now they are the first of a list
_WEIGHTS = {
    "agent.pixels.": "agent.norm.parts.0.",
    "agent.encoder.": "agent.encoder.parts.0.",
    "agent.decoder.": "agent.decoder.parts.0.",
    "agent.objective.encoder.module.": "agent.objective.encoder.module.parts.0.",
}
_LOOPS = ("Algorithm26", "Offline", "Imagined")


def renamed(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """A checkpoint with the weights and the loop's state under their names of today."""
    weights, callbacks = checkpoint.get("state_dict", {}), checkpoint.get("callbacks", {})
    if "agent.pixels.mean" in weights:
        weights = {_weight(name): weight for name, weight in weights.items()}
        callbacks = {"loop" if key in _LOOPS else key: state for key, state in callbacks.items()}
        return {**checkpoint, "state_dict": weights, "callbacks": callbacks}
    return checkpoint


def _weight(name: str) -> str:
    for before, now in _WEIGHTS.items():
        if name.startswith(before):
            return now + name.removeprefix(before)
    return name
