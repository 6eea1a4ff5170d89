"""Models that only write are held as decoding reads them, and are the same models."""

import jax
import numpy as np
import pytest

from configs import motab, opd
from experiments.config.read import read_config
from experiments.pair.pair import load_pair, start_student
from models.decoding.decode import unstack


@pytest.mark.parametrize(
    ("configs", "changes", "trains"),
    [
        (motab, {}, False),
        (motab, {"motab.safe_loss": "reverse_kl"}, True),
        (opd, {}, True),
    ],
)
def test_a_teacher_is_stacked_where_updates_read_it(configs, changes, trains):
    given = configs.get_config("smoke")
    given.update_from_flattened_dict(changes)
    config = read_config(given)
    assert config.teacher_trains is trains
    layers = load_pair(config).teacher.params["layers"]
    assert isinstance(layers, list) is not trains


@pytest.mark.parametrize("rank", [0, 4])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_student_that_only_writes_is_the_one_that_trains(rank, dtype):
    given = motab.get_config("smoke")
    given.student.dtype, given.student.lora.rank = dtype, rank
    pair = load_pair(read_config(given))
    stacked, listed = (start_student(pair, 3, stacked=s) for s in (True, False))
    assert isinstance(listed["layers"], list)
    ours = unstack(stacked, pair.student_config)
    jax.tree.map(np.testing.assert_array_equal, listed, ours)
    assert jax.tree.map(lambda x: x.dtype, listed) == jax.tree.map(lambda x: x.dtype, ours)
