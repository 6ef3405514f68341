"""Reads data sets in a process that may take little memory, and may neither run nor import nor write anything.

`python scan.py TMP URI...` prints a line of JSON: for each address the names of what was read and the reasons of what
was not, or the refusal; and what the process took.
"""

import json
import os
import re
import resource
import sys
import time
from pathlib import Path

MEMORY = 2 << 30
FORBIDDEN = (
    "exec",
    "compile",
    "import",
    "os.system",
    "os.exec",
    "os.posix_spawn",
    "subprocess.Popen",
    "socket.connect",
)


def scan(uri: str) -> dict[str, object]:
    from datamodules.formats.protocol import FormatError
    from datamodules.formats.uri import open_reader

    begin = time.monotonic()
    try:
        reader = open_reader(uri)
        names = [trajectory.name for trajectory in reader.trajectories()]
        problems = {problem.name: problem.reason for problem in reader.problems}
        reader.close()
        result: dict[str, object] = {"names": names, "problems": problems}
    except FormatError as error:
        result = {"refused": type(error).__name__, "reason": str(error)}
    return {**result, "seconds": time.monotonic() - begin}


def forbid(folder: str) -> None:
    def hook(event: str, arguments: tuple[object, ...]) -> None:
        writes = event == "open" and (int(str(arguments[2])) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
        if event in FORBIDDEN or (writes and not str(arguments[0]).startswith(folder)):
            raise SystemExit(f"forbidden: {event} {arguments!r:.200}")

    sys.addaudithook(hook)


def peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


def main(folder: str, warm: str, *uris: str) -> None:
    # a first good data set and a first bad one, so that everything is imported
    assert "names" in scan(warm), scan(warm)
    scan(f"{warm}/missing")
    size = int(re.search(r"VmSize:\s+(\d+)", Path("/proc/self/status").read_text())[1]) << 10
    resource.setrlimit(resource.RLIMIT_AS, (size + MEMORY, size + MEMORY))
    before = peak()
    forbid(folder)
    results = [scan(uri) for uri in uris]
    print(json.dumps({"results": results, "grown": peak() - before}))


if __name__ == "__main__":
    main(*sys.argv[1:])
