"""Checks every call of the three packages against its annotations in tests; installed before the first import."""

from beartype import BeartypeConf, beartype
from beartype.claw import beartype_packages
from jaxtyping import install_import_hook

# not looked at yet with every call checked
UNCHECKED = (
    "trainers.sweeping",
    "trainers.loops",
    "trainers.machine",
    "trainers.deployment.goal",
    "trainers.reporting.aggregates",
    "datamodules.ray_envs.host",  # Ray refuses the methods that a checked class is given
)
# a float may be an int, as everywhere in Python; local variables are mypy's
LENIENT = BeartypeConf(is_pep484_tower=True, claw_is_pep526=False, claw_skip_package_names=UNCHECKED)
check = beartype(conf=LENIENT)


def install() -> None:
    """From here on what is imported is checked: by shape too where arrays have axes, which costs 7 us a call, not 1."""
    beartype_packages(("datamodules", "trainers"), conf=LENIENT)
    install_import_hook(["worldmodel", "trainers.benchmarks"], f"{__name__}.check")
