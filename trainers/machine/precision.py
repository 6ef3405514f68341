"""The precision that updates are computed in, where a configuration leaves it to the machine."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

CPUINFO = Path("/proc/cpuinfo")
FLAGS = ("amx_bf16", "avx512_bf16")  # of processors that multiply bf16 faster than float32


def bf16_flags() -> list[str]:
    """By what this processor computes in bf16; [] where it would be emulated, or does not say."""
    try:
        first = CPUINFO.read_text().partition("\n\n")[0]
    except OSError:
        return []
    known = set(re.findall(r"\w+", first))
    return [flag for flag in FLAGS if flag in known]


def with_precision(config: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration with bf16-mixed for trainer.precision=auto where what computes has bf16, else 32-true."""
    trainer = config["trainer"]
    if trainer["precision"] != "auto":
        return dict(config)
    import torch  # takes seconds, which a wrong word is answered without

    on_gpu = trainer["accelerator"] != "cpu" and torch.cuda.is_available()
    native = torch.cuda.is_bf16_supported() if on_gpu else bool(bf16_flags())
    return {**config, "trainer": {**trainer, "precision": "bf16-mixed" if native else "32-true"}}
