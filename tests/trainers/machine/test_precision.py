"""What `auto` means on a machine."""

from pathlib import Path

import pytest
import torch

from trainers.machine import precision
from trainers.machine.precision import bf16_flags, with_precision


@pytest.mark.parametrize(
    ("flags", "expected"),
    [("fpu avx512f avx512_bf16", "bf16-mixed"), ("amx_bf16 avx512_bf16", "bf16-mixed"), ("fpu avx2", "32-true")],
)
def test_auto_is_what_the_processor_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: str, expected: str
) -> None:
    (tmp_path / "cpuinfo").write_text(f"processor : 0\nflags : {flags}\n\nprocessor : 1\nflags : amx_bf16\n")
    monkeypatch.setattr(precision, "CPUINFO", tmp_path / "cpuinfo")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    config = {"trainer": {"precision": "auto", "accelerator": "auto"}, "seed": 1}
    assert with_precision(config) == {"trainer": {"precision": expected, "accelerator": "auto"}, "seed": 1}
    monkeypatch.setattr(precision, "CPUINFO", tmp_path / "none")
    assert bf16_flags() == []


def test_a_gpu_that_is_there_decides_unless_the_cpu_computes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "CPUINFO", tmp_path / "none")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)
    for accelerator, expected in (("auto", "bf16-mixed"), ("gpu", "bf16-mixed"), ("cpu", "32-true")):
        config = {"trainer": {"precision": "auto", "accelerator": accelerator}}
        assert with_precision(config)["trainer"]["precision"] == expected


def test_what_was_chosen_stays() -> None:
    for chosen in ("32-true", "bf16-mixed", 32):
        assert with_precision({"trainer": {"precision": chosen}})["trainer"]["precision"] == chosen
