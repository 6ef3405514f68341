"""Installs the libraries that draw frames: only where none works, where apt-get is there and may be used."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable

from trainers.machine.rendering import FIXES, PACKAGES, Check, wanted_backends

STDERR = 2  # apt-get's own words are no part of a command's result
ABSENT = ("cannot be loaded", "Cannot initialize")  # no library, or one without a driver
PRESENT = ("hangs", "killed by signal", "blank frame")  # a driver that fails is not mended by another package


def ensure_gl(draw: Callable[[], Check]) -> Check:
    """Draw; where no GL library renders, install one that may and draw again.

    Whatever else keeps a frame from being drawn (a missing package, an unknown task) is returned as it is. The finding
    of a check that still fails is one sentence with the command to type.
    """
    check = draw()
    if not lacks_gl(check):
        return check
    administrator = apt_as_administrator()
    if administrator is None:
        return Check(check.name, f"no frame can be drawn here; run `{check.fix}` and try again", "fail", check.fix)
    for backend in wanted_backends():
        complaint = install(PACKAGES[backend], administrator)
        check = draw()
        if check.state == "ok":
            break
    else:
        sentence = f"no frame can be drawn after `{check.fix}` either{complaint} ({check.finding})"
        return Check(check.name, sentence, "fail", check.fix)
    return check


def lacks_gl(check: Check) -> bool:
    """Whether the one thing that this check misses is a GL library that apt-get has."""
    absent = any(words in check.finding for words in ABSENT) and not any(words in check.finding for words in PRESENT)
    return check.state == "fail" and check.fix in FIXES.values() and absent


def apt_as_administrator() -> list[str] | None:
    """What to put before apt-get: nothing for root, sudo where it asks no password; None where neither will do."""
    if not shutil.which("apt-get"):
        return None
    if os.geteuid() == 0:
        return []
    sudo = ["sudo", "-n"]
    if not shutil.which("sudo"):
        return None
    allowed = subprocess.run([*sudo, "true"], check=False, stdin=subprocess.DEVNULL, capture_output=True)
    return sudo if allowed.returncode == 0 else None


def install(packages: tuple[str, ...], administrator: list[str]) -> str:
    """Install packages by apt-get; returns "" or what went wrong, to go into a sentence."""
    print(f"no GL library renders: installing {' '.join(packages)} by apt-get", file=sys.stderr, flush=True)
    apt = [*administrator, "env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-q"]
    # a package list that cannot be renewed is no reason to give up: the old one may do
    subprocess.run([*apt, "update"], check=False, stdin=subprocess.DEVNULL, stdout=STDERR)
    code = subprocess.run([*apt, "install", "-y", *packages], check=False, stdin=subprocess.DEVNULL, stdout=STDERR)
    return f": apt-get ended with status {code.returncode}" if code.returncode else ""
