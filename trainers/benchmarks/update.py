"""One training update of the configured agent; shapes=planet, r2dreamer or tdmpc2 for a peer's."""

from typing import Any

from trainers.benchmarks.shared.configured_update import configured_update
from trainers.benchmarks.shared.timing import alternate, median_ms


def measure(overrides: list[str], *, repeats: int = 10, shapes: str = "configured") -> dict[str, Any]:
    """One update (losses, backward, clip, optimiser) on random frames."""
    if shapes != "configured":
        overrides = [f"experiment={shapes}_shapes", *overrides]
    update = configured_update(overrides, action_dim=1 if shapes == "configured" else 6)
    seconds, _ = alternate(lambda _: update.call(), lambda k: None, repeats)
    return {
        "update_ms": median_ms(seconds),
        "params": update.params,
        "batch": [*update.rows, *update.pixels],
        "precision": update.precision,
    }
