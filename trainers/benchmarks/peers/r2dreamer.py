"""The world-model part of NM512/r2dreamer's update (12M preset): filter, KL, Barlow's loss, rewards, continuation."""

from collections.abc import Callable
from pathlib import Path

import torch
from omegaconf import OmegaConf
from torch import nn

from trainers.benchmarks.peers.checkout import import_from
from worldmodel.objectives.barlow import cross_correlation_loss

EXPERIMENT = "r2dreamer_shapes"


def build(checkout: Path, *, action_dim: int, batch: int, length: int) -> tuple[Callable[[], object], int]:
    """An update on `batch` windows of `length` rows of noise, and its number of weights."""
    rssm_module, networks, optim = import_from(checkout, "rssm", "networks", "optim")
    configs = checkout / "configs"
    model = OmegaConf.merge(*(OmegaConf.load(configs / f"model/{name}.yaml") for name in ("_base_", "size12M")))
    env = OmegaConf.load(configs / "env/dmc_vision.yaml")
    options = OmegaConf.create({"device": "cpu", "seed": 0, "env": env, "model": model}).model

    encoder = networks.MultiEncoder(options.encoder, {"image": (64, 64, 3)})
    rssm = rssm_module.RSSM(options.rssm, encoder.out_dim, action_dim)
    reward_head = networks.MLPHead(options.reward, rssm.feat_size)
    continuation = networks.MLPHead(options.cont, rssm.feat_size)
    projector = networks.Projector(rssm.feat_size, encoder.out_dim)
    weights = [*nn.ModuleList([encoder, rssm, reward_head, continuation, projector]).parameters()]
    optimizer = optim.LaProp(weights, lr=options.lr, betas=(options.beta1, options.beta2), eps=options.eps)

    image = torch.randint(0, 256, (batch, length, 64, 64, 3), dtype=torch.uint8)
    actions, rewards = torch.rand(batch, length, action_dim) * 2 - 1, torch.rand(batch, length, 1)
    going_on, first = torch.ones(batch, length, 1), torch.zeros(batch, length, dtype=torch.bool)
    scales = options.loss_scales

    def update() -> None:
        embedded = encoder({"image": image.float() / 255})
        stoch, deter, posterior = rssm.observe(embedded, actions, rssm.initial(batch), first)
        dynamics, representation = rssm.kl_loss(posterior, rssm.prior(deter)[1], float(options.kl_free))
        feature = rssm.get_feat(stoch, deter)
        views = projector(feature.flatten(0, 1)), embedded.flatten(0, 1).detach()
        barlow = cross_correlation_loss(*views, redundancy=options.r2dreamer.lambd)
        reward = -reward_head(feature).log_prob(rewards).mean()
        ends = -continuation(feature).log_prob(going_on).mean()
        kl = scales.dyn * dynamics.mean() + scales.rep * representation.mean()
        (kl + scales.barlow * barlow + scales.rew * reward + scales.con * ends).backward()
        optim.clip_grad_agc_(weights, float(options.agc), float(options.pmin), foreach=True)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return update, sum(weight.numel() for weight in weights)
