"""Train over tasks, seeds and options: `python -m trainers.sweep task=a,b seed=0,1,2 out=results/x`."""

import re
import sys
from collections.abc import Sequence
from typing import Any

from trainers.command.arguments import Command, Key
from trainers.process.launched import require_one_process

ENGINE = "engine."  # options of the engine, all others are of the runs

COMMAND = Command(
    name="sweep",
    summary=(
        "Trains every combination of what comma lists say, each as a process of `python -m trainers.fit` in a folder "
        "of its own, as many at once as there are GPUs, or cores: one for each run. Called again it goes on: what is "
        "finished is left out, what is half done is resumed, what failed is tried again. All combinations are checked "
        "before one starts."
    ),
    keys={
        "out": Key("the sweep's folder: OUT/sweep.json, OUT/logs, OUT/<run>, OUT/report.html", required=True),
        "jobs": Key("runs at once, which then share all cores and GPUs; auto, the default: one core or GPU each"),
        "engine": Key("where runs are started: local, the default, ray, slurm, or a file of trainers/sweeping/engines"),
    },
    overrides="of trainers.fit; key=a,b multiplies, key=[a,b] is one value",
    notes="""  python -m trainers.sweep task=cartpole_balance,walker_walk seed=0,1,2 out=results/x
  python -m trainers.sweep experiment=toy seed=0,1 planner=cem,icem out=results/planners
  python -m trainers.sweep task=walker_walk seed=0,1,2 out=results/y engine=ray engine.gpus=0.5
  python -m trainers.sweep out=results/x                  go on with what it was told before, jobs and engine too
  python -m trainers.report results/x                     its page, at any time

Options of an engine, engine.OPTION=: those of its `make` in trainers/sweeping/engines, see docs/sweeps.md.

Results: runs, finished, failed and failures; return_mean over tasks, iqm and iqm_ci95 over all runs; by task and by
variant; out and report. The exit code is 1 where a run failed, 128 + N after signal N, which lets every run save.""",
)


def main(arguments: Sequence[str]) -> dict[str, Any]:
    """Run a sweep; returns the results that are printed as the last line."""
    if not any(text.startswith("out=") for text in arguments):  # what trainers.fit calls the folder that it writes
        arguments = [re.sub("^run_dir=", "out=", text) for text in arguments]
    parsed = COMMAND.parse(arguments)
    require_one_process("sweep")
    # torch and the drawing take seconds to load: help is answered before
    from trainers.sweeping.start import sweep

    words = [text.partition("=") for text in parsed.overrides if text.startswith(ENGINE)]
    name = parsed.own.pop("engine")
    engine = {key.removeprefix(ENGINE): value for key, _, value in words} | ({"name": name} if name else {})
    overrides = [text for text in parsed.overrides if not text.startswith(ENGINE)]
    return sweep(overrides, engine=engine, **parsed.own)


command = COMMAND.program(main)

if __name__ == "__main__":
    sys.exit(command())
