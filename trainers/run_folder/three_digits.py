"""Numbers as people read them."""

from collections.abc import Sequence


def three_digits(value: float) -> str:
    """A number, such as a return, with three digits whatever its scale: 784, 47.2, 0.392; all digits before the dot."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def low_to_high(interval: Sequence[float]) -> str:
    """An interval's two edges: 0.392 to 0.784."""
    low, high = interval
    return f"{three_digits(low)} to {three_digits(high)}"
