"""What was collected, as numbers that ranks can add up."""

from datamodules.envs.protocol import FAULT_KINDS, Fault, Step

COUNTS = ("env_steps", "decisions", "episodes")
_KINDS = tuple(f"faults/{kind}" for kind in FAULT_KINDS)


def damage(blocks: int, rows: int) -> dict[str, int]:
    """`replay/damaged_blocks` and `replay/lost_rows`, only where there is damage."""
    return {"replay/damaged_blocks": blocks, "replay/lost_rows": rows} if blocks or rows else {}


class Tally:
    """Counts of rows and faults; `counters` names them, a kind of fault only where there was one."""

    def __init__(self) -> None:
        self._numbers = dict.fromkeys((*COUNTS, *_KINDS), 0)

    def __getitem__(self, name: str) -> int:
        return self._numbers[name]

    @property
    def counters(self) -> dict[str, int]:
        """env_steps, decisions, episodes, faults, and `faults/<kind>`."""
        kinds = {kind: self._numbers[kind] for kind in _KINDS if self._numbers[kind]}
        return {name: self._numbers[name] for name in COUNTS} | {"faults": sum(kinds.values()), **kinds}

    @counters.setter
    def counters(self, values: dict[str, int]) -> None:
        self._numbers = {name: values.get(name, 0) for name in self._numbers}

    def row(self, step: Step) -> None:
        """Count an arrival row."""
        self._numbers["env_steps"] += step.env_steps
        self._numbers["episodes" if step.is_first else "decisions"] += 1

    def fault(self, fault: Fault) -> None:
        """Count a fault by its kind."""
        self._numbers[f"faults/{fault.kind}"] += 1

    def numbers(self) -> list[int]:
        """All counts, in an order that every rank has."""
        return list(self._numbers.values())

    def add(self, numbers: list[int]) -> None:
        """Add counts in that order."""
        for name, number in zip(self._numbers, numbers, strict=True):
            self._numbers[name] += number
