"""How much memory the process holds."""

import os
from pathlib import Path


def resident_mb() -> float:
    """Resident megabytes of this process; NaN where the system does not tell."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return float("nan")
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6
