"""Every choice of a model and of a policy learns under bf16-mixed, which many machines take by themselves."""

import pytest
import torch

from trainers.benchmarks.shared.timing import random_batch, synthetic_spec, training_step
from trainers.build.agent import build_agent
from trainers.build.check_parts import fit_options
from trainers.command.configuration import groups, load_config
from trainers.training.module import WorldModelModule

CHOICES = [f"{kind}={name}" for kind in ("dynamics", "objective", "policy") for name in groups()[kind]]
HEADS = ["agent.heads.name=laplace", "agent.heads.name=two_hot", "agent.encoder=patch_merging", "agent.unroll=2"]


@pytest.mark.parametrize("choice", [*CHOICES, *HEADS])
def test_an_update_is_finite_and_moves_the_weights(choice: str) -> None:
    words = ["experiment=small", "task=toy_point", "data.batch=3", "data.length=8", "trainer.precision=bf16-mixed"]
    config = fit_options(load_config([*words, choice]), [*words, choice])
    spec = synthetic_spec(config, action_dim=2)
    agent = build_agent(config, spec)
    before = {name: weight.clone() for name, weight in agent.named_parameters()}
    module = WorldModelModule.of(config, agent)
    update = training_step(config, module, torch.device("cpu"))
    for _ in range(2):
        update(random_batch(spec, 3, 8))
    assert module.skipped == 0 and all(weight.isfinite().all() for weight in agent.parameters())
    assert any(not weight.equal(before[name]) for name, weight in agent.named_parameters())
