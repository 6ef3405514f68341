import pytest
import torch

from trainers.acting.exploration import LONGEST, STRETCHES, EpisodeNoise, Exploration
from worldmodel.errors import BadValue


def episodes(count: int, **options) -> torch.Tensor:
    """Noise of episodes [n T A]."""
    exploration = Exploration(**({"std": 0.3, "decisions": 500} | options))
    return torch.stack([exploration.draw(2, torch.Generator().manual_seed(seed)).noise for seed in range(count)])


def correlation(noise: torch.Tensor, lag: int) -> float:
    return float((noise[:, lag:] * noise[:, :-lag]).mean() / noise.square().mean())


@pytest.mark.parametrize("pink", [0.0, 0.5, 1.0])
def test_every_decision_has_the_same_spread(pink: float) -> None:
    noise = episodes(400, pink=pink)
    assert noise.shape == (400, 500, 2)
    assert noise.std() == pytest.approx(0.3, rel=0.1)
    assert abs(float((noise[..., 0] * noise[..., 1]).mean())) < 0.01  # dimensions are pushed apart
    torch.testing.assert_close(noise.std((0, 2)), torch.full((500,), 0.3), rtol=0.25, atol=0)


def test_pink_noise_pushes_longer_than_white() -> None:
    white, pink = episodes(200), episodes(200, pink=1.0)
    assert abs(correlation(white, 1)) < 0.02 and abs(correlation(white, 25)) < 0.02
    assert correlation(pink, 1) > 0.6 > correlation(pink, 25) > 0.15
    # over a second of 25 decisions, which an actuator adds up
    assert pink[:, :25].sum(1).std() > 3 * white[:, :25].sum(1).std()


def test_a_tenth_is_pink_or_white() -> None:
    tenths = episodes(400, pink=0.5).reshape(400 * STRETCHES, 50, 2)
    alike = (tenths[:, 1:] * tenths[:, :-1]).mean((1, 2)) / tenths.square().mean((1, 2))
    assert (alike.abs() < 0.2).float().mean() == pytest.approx(0.5, abs=0.06)  # of white ones 95%, of pink ones few
    assert (alike > 0.35).float().mean() > 0.4


@pytest.mark.parametrize("silent", [0.0, 0.25, 1.0])
def test_silent_stretches_are_tenths_of_an_episode(silent: float) -> None:
    noise = episodes(200, silent=silent)
    tenths = noise.reshape(200, STRETCHES, 50, 2)
    quiet = (tenths == 0).all(-1).all(-1)
    assert torch.equal(quiet, (tenths == 0).any(-1).any(-1))  # none is silent in part
    assert quiet.float().mean() == pytest.approx(silent, abs=0.03)
    if 0 < silent < 1:
        assert len(quiet.unique(dim=0)) > 100  # others in every episode


def test_short_and_long_episodes() -> None:
    assert episodes(1, decisions=3, pink=1.0, silent=0.5).shape == (1, 3, 2)
    assert episodes(1, decisions=1, pink=1.0).isfinite().all()
    assert episodes(1, decisions=10**6, pink=1.0).shape == (1, LONGEST, 2)


def drawn(count: int, *, found: int, **options) -> list[EpisodeNoise]:
    exploration = Exploration(**({"std": 0.3, "decisions": 500} | options))
    return [exploration.draw(2, torch.Generator().manual_seed(seed), found=found) for seed in range(count)]


@pytest.mark.parametrize(("found", "share"), [(0, 1.0), (250, 0.5), (450, 0.1), (500, 0.0), (10**6, 0.0)])
def test_noise_acts_alone_until_as_much_is_found_as_an_episode_has_decisions(found: int, share: float) -> None:
    episodes = drawn(200, found=found, random=1.0, silent=0.25)
    noise, alone = (torch.stack([getattr(one, name) for one in episodes]) for name in ("noise", "alone"))
    silent = (noise == 0).all(-1)
    assert silent.float().mean() == pytest.approx(0.25, abs=0.03)  # the agent shows what it knows as often as ever
    assert not (silent & alone).any()
    assert alone[~silent].float().mean() == pytest.approx(share, abs=0.04)
    if share:
        assert noise[alone].std() == pytest.approx(1.0, rel=0.1)
    if share < 1:
        assert noise[~silent & ~alone].std() == pytest.approx(0.3, rel=0.1)
    tenths = alone.reshape(200, STRETCHES, 50)
    assert torch.equal(tenths.all(-1), tenths.any(-1))


def test_half_of_what_noise_plays_alone_is_pink() -> None:
    tenths = torch.stack([one.noise for one in drawn(200, found=0, random=1.0)]).reshape(-1, 50, 2)
    alike = (tenths[:, 1:] * tenths[:, :-1]).mean((1, 2)) / tenths.square().mean((1, 2))
    assert (alike.abs() < 0.2).float().mean() == pytest.approx(0.5, abs=0.06)
    assert (alike > 0.35).float().mean() > 0.4


@pytest.mark.parametrize("options", [{}, {"pink": 1.0, "silent": 0.25}])
def test_noise_that_never_acts_alone_is_what_it_was_whatever_was_found(options) -> None:
    nothing, much = (drawn(5, found=found, **options) for found in (0, 10**6))
    after = drawn(5, found=10**6, random=1.0, **options)
    for one, other, later in zip(nothing, much, after, strict=True):
        assert one.alone is None and not later.alone.any()
        assert torch.equal(one.noise, other.noise) and torch.equal(one.noise, later.noise)


@pytest.mark.parametrize("options", [{"std": -0.1}, {"pink": float("nan")}, {"silent": 1.5}, {"random": -1.0}])
def test_numbers_out_of_range_are_named(options: dict[str, float]) -> None:
    with pytest.raises(BadValue, match=next(iter(options))):
        Exploration(**({"std": 0.3, "decisions": 10} | options))
