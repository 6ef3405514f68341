"""Numbers as people read them."""


def three_digits(value: float) -> str:
    """A number, such as a return, with three digits whatever its scale: 784, 47.2, 0.392; all digits before the dot."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
