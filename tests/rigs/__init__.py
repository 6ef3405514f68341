"""Long trials, and the parts that they and the tests are made with."""

from pathlib import Path

from datamodules import parts

# the counting environment, which shows what reached it and fails on purpose
PARTS = Path(__file__).parent / "parts"
parts.activate([PARTS])
parts.extend("datamodules.envs")
