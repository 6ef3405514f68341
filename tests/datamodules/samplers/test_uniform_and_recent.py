"""Draws against their closed forms."""

import numpy as np
import pytest

from datamodules.samplers.prioritised import Prioritised
from datamodules.samplers.recent import Recent
from datamodules.samplers.uniform import Uniform
from datamodules.storage.rows import ReplayMismatch
from datamodules.windows import Content, ReplayEmpty, require_same_sampler

LENGTH = 4
CONTENT = Content(
    spans=(
        np.array([[100, 109], [109, 112], [120, 131]]),
        np.zeros((0, 2), np.int64),
        np.array([[0, 3]]),
        np.array([[7, 27]]),
    ),
    ring=64,
    losses=0,
)


def test_rows_count_where_a_window_can_hold_them():
    assert [CONTENT.count_rows(length) for length in (1, 3, 4, 20, 21)] == [46, 46, 40, 20, 0]


def by_age() -> dict[tuple[int, int], int]:
    """(stream, first row) of every window and its age."""
    ages = {}
    for stream, spans in enumerate(CONTENT.spans):
        rows = [row for start, stop in spans for row in range(start, stop - LENGTH + 1)]
        ages |= {(stream, row): len(rows) - 1 - i for i, row in enumerate(rows)}
    return ages


def chances(share: float, half_life: float) -> dict[tuple[int, int], float]:
    ages = by_age()
    q = 2 ** (-1 / half_life)
    n = {s: sum(stream == s for stream, _ in ages) for s, _ in ages}
    return {
        window: share * q**age * (1 - q) / (1 - q ** n[window[0]]) / len(n) + (1 - share) / len(ages)
        for window, age in ages.items()
    }


@pytest.mark.parametrize(
    ("sampler", "share", "half_life"),
    [
        (Uniform(seed=1), 0.0, 1.0),
        (Recent(share=0.0, half_life=3.0, seed=2), 0.0, 3.0),
        (Recent(share=0.5, half_life=3.0, seed=3), 0.5, 3.0),
        (Recent(share=1.0, half_life=0.7, seed=4), 1.0, 0.7),
        (Recent(share=1.0, half_life=1e6, seed=5), 1.0, 1e6),
    ],
)
def test_chances(sampler, share, half_life):
    expected, draws = chances(share, half_life), 60_000
    assert sum(expected.values()) == pytest.approx(1.0)
    drawn = np.concatenate([sampler.draw(CONTENT, 50, LENGTH) for _ in range(draws // 50)])
    found, counts = np.unique(drawn[:, 1:], axis=0, return_counts=True)
    observed = {(s, r): c for (s, r), c in zip(found.tolist(), counts, strict=True)}
    assert observed.keys() <= expected.keys()
    likely = [w for w, p in expected.items() if p * draws > 10]
    chi_square = sum((observed.get(w, 0) - draws * expected[w]) ** 2 / (draws * expected[w]) for w in likely)
    assert abs(chi_square - len(likely)) < 4 * np.sqrt(2 * len(likely))


@pytest.mark.parametrize("make", [Uniform, Recent])
def test_rewinding_and_restoring_repeat_the_draws(make):
    sampler = make(seed=7)
    sampler.draw(CONTENT, 5, LENGTH)
    cursor, state = sampler.cursor(), sampler.state_dict()
    expected = [sampler.draw(CONTENT, 5, LENGTH) for _ in range(3)]
    sampler.rewind(cursor)
    assert all((sampler.draw(CONTENT, 5, LENGTH) == windows).all() for windows in expected)
    other = make(seed=8)
    other.load_state_dict(state)
    assert all((other.draw(CONTENT, 5, LENGTH) == windows).all() for windows in expected)
    assert not (make(seed=8).draw(CONTENT, 50, LENGTH) == make(seed=7).draw(CONTENT, 50, LENGTH)).all()


@pytest.mark.parametrize(("mine", "other"), [(Uniform, Recent), (Recent, Uniform), (Recent, Prioritised)])
def test_another_samplers_state_is_refused(mine, other):
    require_same_sampler(mine(seed=1), mine(seed=2).state_dict())
    with pytest.raises(ReplayMismatch, match=f"data.sampler: expected {mine.__name__.lower()}"):
        require_same_sampler(mine(), other().state_dict())


@pytest.mark.parametrize("make", [Uniform, Recent])
def test_nothing_to_draw(make):
    with pytest.raises(ReplayEmpty, match="expected 21 consecutive rows of an episode, got 46 rows"):
        make().draw(CONTENT, 5, 21)


@pytest.mark.parametrize(
    ("key", "value"),
    [("share", 1.5), ("share", -0.1), ("half_life", 0.0), ("half_life", np.nan), ("half_life", np.inf)],
)
def test_bad_options(key, value):
    with pytest.raises(ValueError, match=f"^{key}: expected"):
        Recent(**{key: value})
