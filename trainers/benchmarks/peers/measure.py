"""An update of this agent and one of another project by turns: its own code, from a checkout of it that you name."""

from pathlib import Path
from typing import Any

import numpy as np

from trainers.benchmarks.peers import planet, r2dreamer, tdmpc2
from trainers.benchmarks.shared.configured_update import configured_update
from trainers.benchmarks.shared.timing import alternate, median_ms
from worldmodel.limits import require_one_of

PEERS = {"planet": planet, "r2dreamer": r2dreamer, "tdmpc2": tdmpc2}


def measure(overrides: list[str], *, peer: str = "planet", checkout: str = "", repeats: int = 10) -> dict[str, Any]:
    """Ours has as many weights and rows, in the precision of `trainer.precision`; the peer's is float32."""
    require_one_of(PEERS, peer=peer)
    ours = configured_update([f"experiment={PEERS[peer].EXPERIMENT}", *overrides], action_dim=6)
    batch, length = ours.rows
    theirs, weights = PEERS[peer].build(Path(checkout), action_dim=6, batch=batch, length=length)
    seconds, peer_seconds = alternate(lambda _: ours.call(), lambda _: theirs(), repeats)
    quartiles = np.quantile(seconds / peer_seconds, (0.25, 0.5, 0.75))
    return {
        **{"peer": peer, "update_ms": median_ms(seconds), "peer_ms": median_ms(peer_seconds)},
        **{"ratio": float(quartiles[1]), "ratio_quartiles": [*map(float, quartiles[::2])]},
        **{"params": ours.params, "peer_params": weights, "batch": [batch, length], "precision": ours.precision},
    }
