"""One self-contained report.html from a run folder: `python -m trainers.report runs/<task>/<time>`."""

import json
import sys

from trainers.reporting.page import write_report


def main(argv: list[str]) -> dict[str, str]:
    """Write the report of the run folder named on the command line."""
    if len(argv) != 1:
        raise SystemExit("usage: python -m trainers.report runs/<task>/<time>")
    return {"report": str(write_report(argv[0]))}


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1:])))
