"""Chunked losses against the same functions of all logits at once."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import models
from distill.losses import chunked
from distill.losses.divergence import top_k_entropy
from distill.losses.signal import Signal, token_divergence

LOW = {"xla_backend_optimization_level": 0}  # programs that run once or twice


def config(vocab, hidden, **fields):
    return models.ModelConfig("qwen3", vocab, hidden, 8, 1, 2, 1, 4, **fields)


def signal_loss(signal):
    """Every kind of statistic beside a signal's divergence and, for some tokens, the likelihood."""

    def function(student, teacher, x):
        both = min(student.shape[-1], teacher.shape[-1])
        p, q = student[..., :both], teacher[..., :both]
        drawn = jnp.clip(x["tokens"], max=both - 1)
        value = token_divergence(signal, q, p, drawn, x["weights"])
        log_prob = chunked.log_probs(student, x["tokens"])
        return value - x["likelihood"] * log_prob, {
            "log_prob": log_prob,
            "entropy": top_k_entropy(student, student.shape[-1]),
            "agree": jnp.argmax(p, axis=-1) == jnp.argmax(q, axis=-1),
        }

    return function


SIGNALS = [
    Signal("forward_kl"),
    Signal("reverse_kl"),
    *(Signal("jsd", beta) for beta in (0.0, 0.3, 0.5, 1.0)),
    *(Signal("reverse_kl", support="top_k", top_k=3, top_k_of=of) for of in ("student", "teacher")),
    Signal("jsd", 0.7, "top_k", 4, "union"),
    Signal("reverse_kl", support="sampled", estimator="k2"),
    Signal("forward_kl", support="sampled", estimator="k3"),
    Signal("jsd", 0.4, "sampled", form="advantage"),
]


def draw(seed, rows=3, length=7, vocab=13, width=16, hidden=8, teacher_hidden=6):
    """Hidden states and heads of both, weights with zeros and both signs, and extras."""
    rng = np.random.default_rng(seed)

    def normal(*shape):
        return jnp.asarray(rng.normal(0, 1, shape), jnp.float32)

    weights = normal(rows, length) * (rng.random((rows, length)) < 0.7)
    extras = {
        "tokens": jnp.asarray(rng.integers(0, vocab, (rows, length)), jnp.int32),
        "weights": weights,
        "likelihood": jnp.asarray(rng.random((rows, length)) < 0.3, jnp.float32),
    }
    return (
        normal(rows, length, hidden), normal(vocab, hidden) / 2,
        normal(rows, length, teacher_hidden), normal(width, teacher_hidden) / 2, weights, extras,
    )  # fmt: skip


def pieces(function, arrays, student_config=None, teacher_config=None):
    """(3 L, statistics) and the gradients by hidden states and heads of both."""
    hidden, head, teacher_hidden, teacher_head, weights, extras = arrays
    student_config = student_config or config(head.shape[0], head.shape[1])
    teacher_config = teacher_config or config(teacher_head.shape[0], teacher_head.shape[1])

    def loss(hidden, head, teacher_hidden, teacher_head):
        value, statistics = chunked.weighted_sum(
            function,
            chunked.Readout(hidden, head, student_config),
            chunked.Readout(teacher_hidden, teacher_head, teacher_config),
            weights,
            extras,
        )
        return 3 * value, statistics

    fn = jax.value_and_grad(loss, argnums=(0, 1, 2, 3), has_aux=True)
    return jax.jit(fn, compiler_options=LOW)(hidden, head, teacher_hidden, teacher_head)


def dense(function, arrays):
    hidden, head, teacher_hidden, teacher_head, weights, extras = arrays

    def loss(hidden, head):
        teacher = jnp.einsum("btd,vd->btv", teacher_hidden, teacher_head)
        value, statistics = function(jnp.einsum("btd,vd->btv", hidden, head), teacher, extras)
        statistics = jax.tree.map(
            lambda x: jnp.where(weights != 0, x, 0).astype(x.dtype), statistics
        )
        return 3 * jnp.sum(jnp.where(weights != 0, weights * value, 0.0)), statistics

    fn = jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)
    return jax.jit(fn, compiler_options=LOW)(hidden, head)


def assert_close(got, want, tolerance):
    """Relative to the largest entry of each array."""
    for (path, a), b in zip(
        jax.tree_util.tree_leaves_with_path(got), jax.tree.leaves(want), strict=True
    ):
        a, b = np.asarray(a), np.asarray(b)
        if b.dtype.kind != "f":
            np.testing.assert_array_equal(a, b)
            continue
        error = np.abs(a - b).max(initial=0) / max(np.abs(b).max(initial=0), 1e-6)
        assert error < tolerance, (jax.tree_util.keystr(path), error)


@pytest.fixture(autouse=True)
def precise():
    with jax.default_matmul_precision("highest"):
        yield


@pytest.mark.parametrize(
    "signal",
    [
        signal
        if signal in (SIGNALS[0], SIGNALS[8]) or signal.support == "sampled"
        else pytest.param(signal, marks=pytest.mark.slow)
        for signal in SIGNALS
    ],
    ids=str,
)
def test_values_and_gradients_equal_the_dense_ones_whatever_the_block(signal, monkeypatch):
    arrays = draw(0)
    function = signal_loss(signal)
    want = dense(function, arrays)
    assert np.any(want[1][0]) and np.any(want[1][1])
    whole = None
    # One block; blocks that do not divide the length; single positions.
    for positions in (7, 3, 1) if signal in SIGNALS[:2] else (3,):
        monkeypatch.setattr(chunked, "_BLOCK_ELEMENTS", 3 * 16 * positions)
        value, (hidden, head, *teacher) = pieces(function, arrays)
        assert_close((value, (hidden, head)), want, 1e-5)
        assert not any(np.any(x) for x in teacher)
        whole = whole or (value, (hidden, head))
        assert_close((value, (hidden, head)), whole, 1e-6)


@pytest.mark.slow
@given(st.data())
@settings(max_examples=8)
def test_any_shape_and_any_block(data):
    sizes = {
        name: data.draw(st.integers(1, most), label=name)
        for name, most in (
            ("rows", 4), ("length", 9), ("vocab", 11), ("width", 11), ("hidden", 5),
            ("teacher_hidden", 5),
        )
    }  # fmt: skip
    function = signal_loss(data.draw(st.sampled_from(SIGNALS[:2] + SIGNALS[-4:])))
    arrays = draw(data.draw(st.integers(0, 99)), **sizes)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chunked, "_BLOCK_ELEMENTS", data.draw(st.integers(1, 300), label="block"))
        value, (hidden, head, *_) = pieces(function, arrays)
    # Where student and teacher nearly agree, little is left of a difference.
    assert_close((value, (hidden, head)), dense(function, arrays), 1e-4)


def test_tokens_without_a_weight_add_nothing_even_where_the_value_is_infinite(monkeypatch):
    monkeypatch.setattr(chunked, "_BLOCK_ELEMENTS", 3 * 16 * 2)
    arrays = draw(1)
    weights, extras = arrays[4], arrays[5]

    def function(student, teacher, x):
        value = chunked.log_probs(student, x["tokens"])
        return jnp.where(x["weights"] != 0, value, jnp.inf), ()

    (value, _), (hidden, head, *_) = pieces(function, arrays)
    assert np.isfinite(value) and np.any(head)
    assert not np.any(np.asarray(hidden)[np.asarray(weights) == 0])
    none = (*arrays[:4], jnp.zeros_like(weights), extras)
    (value, _), gradients = pieces(signal_loss(SIGNALS[0]), none)
    assert value == 0 and not any(np.any(g) for g in gradients)


def test_no_blocks_are_formed_behind_the_last_token_with_a_weight(monkeypatch):
    """Prompts, padding and what else has no weight cost nothing, wherever in a row it lies."""
    monkeypatch.setattr(chunked, "_BLOCK_ELEMENTS", 3 * 16 * 2)
    arrays = list(draw(7, length=11))
    weights = np.zeros((3, 11), np.float32)
    weights[0, [1, 4, 9]] = 0.5, -1.0, 2.0
    weights[2, 10] = 1.0
    arrays[4] = jnp.asarray(weights)
    formed = []
    inner = signal_loss(SIGNALS[1])

    def function(*inputs):
        jax.debug.callback(lambda: formed.append(1))
        return inner(*inputs)

    value, (hidden, head, *_) = pieces(function, arrays)
    assert_close((value, (hidden, head)), dense(inner, arrays), 1e-5)
    jax.effects_barrier()
    assert len(formed) == 2  # three tokens of the first row, two a block, out of six blocks


def test_statistics_weights_and_extras_have_no_gradient():
    hidden, head, _, _, weights, extras = draw(2)

    def loss(hidden, weights, extra):
        side = chunked.Readout(hidden, head, config(13, 8))
        value, statistics = chunked.weighted_sum(
            lambda p, q, x: (x * p[..., 0], p[..., 1]), side, None, weights, extra
        )
        return statistics.sum() + 0 * value + (value if hidden is None else 0)

    for gradient in jax.grad(loss, argnums=(0, 1, 2))(hidden, weights, extras["likelihood"]):
        assert not np.any(gradient)


def test_mapped_statistics_are_those_of_all_logits_and_differentiable(monkeypatch):
    hidden, head, teacher_hidden, teacher_head, _, extras = draw(3)
    student_config, teacher_config = config(13, 8), config(16, 6)

    def function(p, q, x):
        return {
            "a": chunked.log_probs(p, x["tokens"]),
            "b": q[..., :2] + x["likelihood"][..., None],
        }

    def mapped(hidden, head):
        return chunked.map_logits(
            function,
            chunked.Readout(hidden, head, student_config),
            chunked.Readout(teacher_hidden, teacher_head, teacher_config),
            extras,
        )

    def plain(hidden, head):
        return function(hidden @ head.T, teacher_hidden @ teacher_head.T, extras)

    for elements in (2**20, 3 * 16 * 2):
        monkeypatch.setattr(chunked, "_BLOCK_ELEMENTS", elements)
        assert_close(mapped(hidden, head), plain(hidden, head), 1e-5)
        got, want = (
            jax.grad(lambda *x, f=f: jnp.sum(jnp.sin(f(*x)["a"])), argnums=(0, 1))(hidden, head)
            for f in (mapped, plain)
        )
        assert_close(got, want, 1e-5)


def test_heads_are_the_models_own():
    params = {"embed": jnp.ones((5, 4)), "head": jnp.zeros((5, 4))}
    hidden = jnp.ones((1, 1, 4))
    for tied, expected in ((True, 1), (False, 0)):
        side = chunked.readout(params, config(5, 4, tie_embeddings=tied), hidden)
        assert np.all(np.asarray(side.head_VxD) == expected)


@pytest.mark.parametrize("storage", ["float32", "bfloat16"])
def test_bfloat16_has_float32_sums(storage, monkeypatch):
    """Many equal tokens, one a block: a sum in bfloat16 would stand still at 256 of them."""
    monkeypatch.setattr(chunked, "_BLOCK_ELEMENTS", 1)
    drawn = draw(4, rows=1, length=1)
    one = [x.astype(jnp.bfloat16).astype(jnp.float32) for x in drawn[:4]]
    one += [jnp.ones((1, 1)), {**drawn[5], "weights": jnp.ones((1, 1))}]
    function = signal_loss(SIGNALS[1])
    exact = dense(function, one)
    low = [x.astype(jnp.bfloat16) for x in one[:4]]
    if storage == "float32":  # master weights
        low[1], low[3] = one[1], one[3]
    configs = config(13, 8, dtype="bfloat16"), config(16, 6, dtype="bfloat16")

    def tiled(n):
        arrays = [*low, *one[4:]]
        for i in (0, 2, 4, 5):
            arrays[i] = jax.tree.map(lambda x: jnp.repeat(x, n, axis=1), arrays[i])
        return pieces(function, arrays, *configs)

    value, (hidden, head, *_) = tiled(1)
    assert_close(
        value[0], exact[0][0], 1e-5
    )  # products of bfloat16 numbers, summed in float32, are exact
    assert hidden.dtype == jnp.bfloat16 and head.dtype == storage
    assert_close(hidden.astype(jnp.float32), exact[1][0], 1e-2)
    assert_close(head.astype(jnp.float32), exact[1][1], 1e-2)
    value, (_, many, *_) = tiled(1000)
    assert_close(value[0], 1000 * exact[0][0], 1e-5)
    tolerance = 1e-5 if storage == "float32" else 1e-2
    assert_close(many.astype(jnp.float32), 1000 * head.astype(jnp.float32), tolerance)


def test_a_frozen_head_has_no_gradient_and_none_is_computed(monkeypatch):
    monkeypatch.setattr(chunked, "_BLOCK_ELEMENTS", 3 * 16 * 2)
    arrays = draw(5)
    function = signal_loss(SIGNALS[0])
    lora = config(13, 8, lora=models.LoraConfig(2, 4.0))
    value, (hidden, head, *_) = pieces(function, arrays, lora)
    assert_close((value, hidden), (dense(function, arrays)[0], dense(function, arrays)[1][0]), 1e-5)
    assert head.shape == (13, 8) and not np.any(head)

    def gradient(hidden, student_config):
        sides = (
            chunked.Readout(hidden, arrays[1], student_config),
            chunked.Readout(arrays[2], arrays[3], config(16, 6)),
        )
        return jax.grad(lambda s: chunked.weighted_sum(function, s, sides[1], *arrays[4:])[0])(
            sides[0]
        ).hidden_BxTxD

    products = [
        str(jax.make_jaxpr(gradient, static_argnums=1)(arrays[0], c)).count(
            "f32[1,13,8] = dot_general"
        )
        for c in (config(13, 8), lora)
    ]
    assert products == [1, 0]


@pytest.mark.parametrize("which", ["teacher", "weights and extras"])
def test_arrays_of_other_tokens_are_refused(which):
    arrays = list(draw(6))
    at = 2 if which == "teacher" else 4
    arrays[at] = arrays[at][:, :-1]
    with pytest.raises(ValueError, match=f"{which}: an array .* of other tokens"):
        pieces(signal_loss(SIGNALS[0]), arrays)
