from dataclasses import replace

import pytest
import torch

from tests.conftest import A, small_agent
from worldmodel.errors import BadValue
from worldmodel.interfaces import Batch
from worldmodel.random_shift import shift_windows

B, T, SIZE = 60, 4, 16


def batch() -> Batch:
    first, last, terminal = torch.zeros(3, B, T, dtype=torch.bool)
    generator = torch.Generator().manual_seed(0)
    image = lambda size: torch.randint(0, 256, (B, T, 3, *size), dtype=torch.uint8, generator=generator)  # noqa: E731
    observation = {"pixels": image((SIZE, SIZE)), "wide": image((8, 24)), "joints": torch.randn(B, T, 2)}
    return Batch(observation, torch.rand(B, T, 2), torch.rand(B, T), first, last, terminal)


def moved(frame: torch.Tensor, down: int, right: int) -> torch.Tensor:
    """A frame [c h w] by hand: padded with its own edges, then cut out."""
    padded = torch.nn.functional.pad(frame[None].float(), (3, 3, 3, 3), mode="replicate")[0].to(torch.uint8)
    h, w = frame.shape[-2:]
    return padded[:, 3 - down : 3 - down + h, 3 - right : 3 - right + w]


def shifts_of(before: torch.Tensor, after: torch.Tensor) -> list[tuple[int, int]]:
    """The shift that explains all frames [T c h w] of a window."""
    places = [(down, right) for down in range(-3, 4) for right in range(-3, 4)]
    return [p for p in places if all(torch.equal(moved(a, *p), b) for a, b in zip(before, after, strict=True))]


def test_a_window_s_frames_are_moved_alike_and_every_window_s_by_itself() -> None:
    torch.manual_seed(1)
    given = batch()
    result = shift_windows(given, pixels=2)
    for name in ("pixels", "wide"):
        found = [shifts_of(*rows) for rows in zip(given.observation[name], result.observation[name], strict=True)]
        assert all(len(places) == 1 for places in found)  # one shift for all T frames of each
        down, right = zip(*[places[0] for places in found], strict=True)
        assert set(down) == set(right) == {-2, -1, 0, 1, 2}
    assert torch.equal(result.observation["joints"], given.observation["joints"])
    assert torch.equal(result.reward, given.reward) and torch.equal(result.action, given.action)


def test_no_pixel_is_moved_by_none() -> None:
    given = batch()
    assert torch.equal(shift_windows(given, pixels=0).observation["pixels"], given.observation["pixels"])


def test_only_what_learns_is_moved() -> None:
    given = batch()
    given = replace(given, observation={"pixels": given.observation["pixels"]}, action=torch.rand(B, T, A))

    def loss(shift: int, *, training: bool) -> float:
        torch.manual_seed(0)
        agent = small_agent(random_shift=shift).train(training)
        torch.manual_seed(5)
        return float(agent.losses(given).total.detach())

    assert loss(3, training=True) != loss(0, training=True)
    assert loss(3, training=False) == loss(0, training=False)


def test_a_shift_below_nothing_is_refused() -> None:
    with pytest.raises(BadValue, match="random_shift"):
        small_agent(random_shift=-1)
