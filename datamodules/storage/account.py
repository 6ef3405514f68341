"""What a reader of a log has met so far, and what is missing: blocks and rows are numbered, so gaps can be counted."""

from dataclasses import dataclass

from datamodules.storage.blocks import Block


@dataclass(slots=True)
class Account:
    """blocks, rows: the numbers that come next. damaged_blocks, lost_rows: numbers that were passed over."""

    blocks: int = 0
    rows: int = 0
    damaged_blocks: int = 0
    lost_rows: int = 0

    def accepts(self, block: Block) -> bool:
        """Whether `block` goes on from here, perhaps after a gap; False for one that was met already."""
        if block.number < self.blocks or block.first_row < self.rows:
            return False
        self.skip_to(blocks=block.number, rows=block.first_row)
        self.blocks, self.rows = block.number + 1, block.next_row
        return True

    def skip_to(self, *, blocks: int, rows: int) -> None:
        """Everything below these numbers that was not met is missing."""
        self.damaged_blocks += max(0, blocks - self.blocks)
        self.lost_rows += max(0, rows - self.rows)
        self.blocks, self.rows = max(self.blocks, blocks), max(self.rows, rows)
