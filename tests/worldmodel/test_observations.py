"""Named observations: normalised, embedded and decoded each by its own part, each weighed once."""

import pytest
import torch
from torch import nn

from worldmodel.observations import ObservationDecoder, ObservationEncoder, ObservationNorm, PixelNorm, VectorNorm


class Part(nn.Module):
    """Answers with a tensor whatever it is given; embeds by flattening."""

    embed_dim = 3

    def __init__(self, answer: torch.Tensor | None = None) -> None:
        super().__init__()
        self.answer = answer

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        return rows if self.answer is None else self.answer.expand(len(rows), *self.answer.shape)


def test_vectors_have_zero_mean_and_unit_std_and_an_inverse_and_what_is_constant_stays_small() -> None:
    rows = torch.randn(500, 3) * torch.tensor([1e-3, 50.0, 0.0]) + torch.tensor([3.0, -100.0, 7.0])
    norm = VectorNorm(3)
    norm.fit(rows)
    x = norm(rows)
    torch.testing.assert_close(x.mean(0), torch.zeros(3), atol=2e-3, rtol=0)
    torch.testing.assert_close(x.std(0, correction=0), torch.tensor([1.0, 1.0, 0.0]), atol=2e-3, rtol=0)
    torch.testing.assert_close(norm.denormalise(x), rows)
    assert norm(rows + 0.5)[:, 2].max() == 0.5  # its unit is the environment's
    as_is = VectorNorm(3, measured=False)
    as_is.fit(rows)
    assert torch.equal(as_is(rows), rows)


def test_normalised_again_is_what_it_was() -> None:
    norm = ObservationNorm({"wrist.camera": PixelNorm((3, 4, 4)), "keys": VectorNorm(2)})
    seen = {"keys": torch.randn(50, 2) * 3 + 1, "wrist.camera": torch.randint(0, 256, (50, 3, 4, 4), dtype=torch.uint8)}
    norm.fit(seen)
    x = norm(seen)
    assert list(x) == ["wrist.camera", "keys"], "the order of the parts, whatever the observation's"
    again = norm.renormalise(norm.denormalise(x))
    for name in x:
        torch.testing.assert_close(again[name], x[name], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("rows", [(1,), (2, 3), (25,)])
def test_encoders_get_frames_in_the_precision_of_products(rows: tuple[int, ...]) -> None:
    norm = ObservationNorm({"camera": PixelNorm((3, 4, 4)), "keys": VectorNorm(2)})
    seen = {
        "camera": torch.randint(0, 256, (*rows, 3, 4, 4), dtype=torch.uint8),
        "keys": torch.randn(*rows, 2),
    }
    norm.fit({name: x.flatten(0, len(rows) - 1) for name, x in seen.items()})
    exact = norm(seen)
    plain = norm.as_product(seen)
    assert all(torch.equal(plain[name], exact[name]) for name in seen)
    with torch.autocast("cpu", torch.bfloat16):
        fewer_bits = norm.as_product(seen)
    torch.testing.assert_close(fewer_bits["camera"], exact["camera"].bfloat16())
    assert torch.equal(fewer_bits["keys"], exact["keys"])


def test_embeddings_lie_side_by_side_in_the_order_of_the_names() -> None:
    encoder = ObservationEncoder({"a": Part(), "b": Part()})
    rows = {"b": torch.full((2, 4, 3), 2.0), "a": torch.full((2, 4, 3), 1.0)}
    assert encoder.embed_dim == 6
    assert encoder(rows)[0, 0].tolist() == [1.0, 1.0, 1.0, 2.0, 2.0, 2.0]
    alone = ObservationEncoder({"a": Part()})
    assert alone(rows) is rows["a"], "nothing is copied for one observation"


def test_every_image_and_every_vector_weighs_once_whatever_its_size() -> None:
    zeros = {"big": torch.zeros(3, 8, 8), "small": torch.zeros(1, 2, 2), "joints": torch.zeros(5)}
    decoder = ObservationDecoder({name: Part(x) for name, x in zeros.items()}, vectors=["joints"])
    target = {name: torch.full((6, *x.shape), scale) for (name, x), scale in zip(zeros.items(), (1, 2, 3), strict=True)}
    losses = decoder.losses(torch.zeros(6, 4), {name: x.float() for name, x in target.items()})
    assert {name: float(x) for name, x in losses.items()} == {"image": 1.0 + 4.0, "vector": 9.0}
    only = ObservationDecoder({"joints": Part(zeros["joints"])}, vectors=["joints"])
    assert only.losses(torch.zeros(6, 4), target).keys() == {"vector"}


@pytest.mark.parametrize("name", ["type", "a.b", "observation/images/top", ""])
def test_a_name_may_be_any_text(name: str) -> None:
    norm = ObservationNorm({name: VectorNorm(2)})
    assert norm({name: torch.ones(1, 2)})[name].tolist() == [[1.0, 1.0]]
