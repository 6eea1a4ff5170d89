"""`optimizer.micro_batches` reaches every method's train step."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest

from configs import atesd, gkd, grpo, motab, opd, opsd, pretrain, sft, skd
from distill.trajectories import Trajectories
from experiments.config.read import read_config
from experiments.methods import make_recipe
from experiments.methods.base import Base
from experiments.methods.sft import Sft
from experiments.pair.pair import abstract_pair


class _Stated(Base):
    """A method's state, with what its recipe carries."""

    def __init__(self, config, pair, recipe):
        super().__init__(pair, config.optimizer, config.steps, config.batch_size)
        self._recipe = recipe

    def method_state(self, params):
        return self._recipe.method_state(params)


def cut(module, parts: int):
    config = module.get_config()
    config.optimizer.micro_batches = parts
    if "rollout" in config:
        config.rollout.max_total = 16  # responses fit into the rows below
    return config


@pytest.mark.parametrize("module", [motab, opd, gkd, skd, grpo, sft, atesd, opsd])
def test_a_batch_is_cut_into_as_many_parts(module):
    def trace(parts: int) -> str:
        config = cut(module, parts)
        tree = read_config(config)
        recipe = make_recipe(tree, abstract_pair(tree, None))
        base = _Stated(tree, recipe.pair, recipe)
        i, f = (jax.ShapeDtypeStruct((config.batch_size, 24), x) for x in (jnp.int32, jnp.float32))
        inputs = recipe.abstract_inputs(Trajectories(i, i, f, f, i, i))
        step = recipe.train_step(base.optimizer, base.micro_batches)
        return str(jax.make_jaxpr(step)(base.abstract(), recipe.pair.teacher_params, inputs))

    assert "8,4,24" in trace(4).replace(" ", "") and "8,4,24" not in trace(1).replace(" ", "")
    with pytest.raises(
        ValueError, match=r"optimizer\.micro_batches=5 does not divide batch_size=32"
    ):
        trace(5)


def test_supervised_training_has_parts_too():
    config = pretrain.get_config("student")
    config.optimizer.micro_batches = 4
    tree = read_config(config)
    method = Sft(tree, abstract_pair(tree, None))
    rows = jax.eval_shape(lambda: _rows(config))
    traced = str(jax.make_jaxpr(method._train)(method.abstract(), rows)).replace(" ", "")
    assert f"4,8,{config.sft.max_tokens}" in traced or f"8,4,{config.sft.max_tokens}" in traced
    config.optimizer.micro_batches = 5
    with pytest.raises(ValueError, match="micro_batches=5 does not divide"):
        read_config(config)


def _rows(config) -> Trajectories:
    shape = config.batch_size, config.sft.max_tokens
    i, f = jnp.zeros(shape, jnp.int32), jnp.zeros(shape)
    return Trajectories(i, i, f, f, i, i)
