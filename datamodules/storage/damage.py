"""How many rows may be lost before what is left is not what was recorded."""

from collections.abc import Sequence
from pathlib import Path

LIMIT = 0.05


class ReplayDamaged(RuntimeError):
    """More rows are lost than may be; names how many, the limit, and where what is left of them lies."""


def require_most(folders: Sequence[Path | None], *, lost: int, stored: int, blocks: int, limit: float) -> None:
    """Raise ReplayDamaged where more than a share `limit` of the `stored` rows, lost ones included, are lost."""
    if lost <= limit * stored:
        return
    override = min(1.0, lost / stored + 0.01)
    aside = any(folder and next(folder.glob("stream_*/damaged"), None) for folder in folders)
    raise ReplayDamaged(
        f"{', '.join(map(str, folders))}: {lost} of {stored} rows are lost in {blocks} damaged blocks, "
        f"expected at most {limit:.0%}{'; what could not be read is in stream_*/damaged' if aside else ''}. "
        f"To go on with the rest, set data.damage_limit={override:.2f}"
    )
