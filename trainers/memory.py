"""How much memory the process holds."""

from pathlib import Path


def resident_mb() -> float:
    """Resident megabytes of this process without mapped files, which the system takes back as it needs to.

    NaN where the system does not tell.
    """
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        kib = {line.split(":")[0]: int(line.split()[1]) for line in lines if line.startswith(("VmRSS:", "RssFile:"))}
        return (kib["VmRSS"] - kib["RssFile"]) * 1024 / 1e6
    except (OSError, ValueError, IndexError, KeyError):
        return float("nan")
