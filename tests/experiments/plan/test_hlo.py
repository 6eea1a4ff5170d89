"""FLOPs and collectives counted in the text of compiled programs."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest

from experiments.plan.hlo import program_cost

X, W = jnp.ones((3, 8)), jnp.ones((8, 8))


def cost_of(function, *arguments, **options):
    return program_cost(jax.jit(function).lower(*arguments).compile().as_text(), **options)


def test_a_product_is_two_operations_per_pair():
    assert cost_of(lambda x, w: x @ w, X, W).flops == 2 * 3 * 8 * 8
    batched = cost_of(lambda x, w: jnp.einsum("bij,bjk->bik", x, w), jnp.ones((5, 3, 8)), jnp.ones((5, 8, 7)))  # fmt: skip
    assert batched.flops == 2 * 5 * 3 * 8 * 7


def test_the_body_of_a_loop_counts_as_often_as_it_runs():
    def scan(x, w):
        return jax.lax.scan(lambda x, _: (jnp.tanh(x @ w), None), x, length=6)[0]

    once = 2 * 3 * 8 * 8
    found = cost_of(scan, X, W)
    assert found.flops == 6 * once and found.unknown_loops == 0
    nested = cost_of(lambda x, w: jax.lax.fori_loop(0, 4, lambda _, x: scan(x, w), x), X, W)
    assert nested.flops == 4 * 6 * once


def test_a_loop_of_unknown_length_counts_as_it_is_told():
    def loop(n, x, w):
        return jax.lax.fori_loop(0, n, lambda _, x: jnp.tanh(x @ w), x)

    once = 2 * 3 * 8 * 8
    assert cost_of(loop, 9, X, W).flops == once
    found = cost_of(loop, 9, X, W, unknown_trips=7)
    assert found.flops == 7 * once and found.unknown_loops == 1


def test_of_two_branches_the_dearer_one_counts():
    def choose(flag, x, w):
        return jax.lax.cond(flag, lambda: jnp.tanh(jnp.tanh(x @ w) @ w), lambda: x @ w)

    assert cost_of(choose, True, X, W).flops == 2 * 2 * 3 * 8 * 8


# A program as XLA prints it, with names of its own.
TEXT = """\
HloModule jit_f, entry_computation_layout={(f32[8]{0})->f32[8]{0}}

%add (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %sum = f32[] add(%a, %b)
}

%body (p: (s32[], f32[8])) -> (s32[], f32[8]) {
  %p = (s32[], f32[8]{0}) parameter(0)
  %i = s32[] get-tuple-element(%p), index=0
  %x = f32[8]{0} get-tuple-element(%p), index=1
  %all-reduce.1 = f32[8]{0} all-reduce(%x), replica_groups={{0,1}}, to_apply=%add
  ROOT %t = (s32[], f32[8]{0}) tuple(%i, %all-reduce.1)
}

%condition (p: (s32[], f32[8])) -> pred[] {
  %p = (s32[], f32[8]{0}) parameter(0)
  ROOT %yes = pred[] constant(true)
}

ENTRY %main (x: f32[8]) -> f32[8] {
  %x = f32[8]{0} parameter(0)
  %half = bf16[8]{0} convert(%x)
  %all-gather-start.1 = (bf16[8]{0}, bf16[16]{0}) all-gather-start(%half), dimensions={0}
  %gathered = bf16[16]{0} all-gather-done(%all-gather-start.1)
  %scattered = f32[4]{0} reduce-scatter(%x), dimensions={0}, to_apply=%add
  %start = (s32[], f32[8]{0}) tuple(%x, %x)
  %k = f32[8]{0} custom-call(%x), custom_call_target="tpu_custom_call", frontend_attributes={kernel_metadata={
"metadata":"{}"
}}, metadata={op_name="kernel"}
  %loop = (s32[], f32[8]{0}) while(%start), condition=%condition, body=%body, backend_config={"known_trip_count":{"n":"5"}}
  %l = f32[8]{0} custom-call(%x), custom_call_target="AllocateBuffer"
  ROOT %out = f32[8]{0} get-tuple-element(%loop), index=1
}
"""


def test_collectives_count_the_larger_side():
    found = program_cost(TEXT)
    assert found.sent == {"all-reduce": 5 * 32, "all-gather": 32, "reduce-scatter": 32}
    assert found.collectives == {"all-reduce": 5, "all-gather": 1, "reduce-scatter": 1}
    assert found.kernels == {"tpu_custom_call": 1}


@pytest.mark.parametrize(
    ("bound", "trips"), [("constant(9)", 9), ("get-tuple-element(%p), index=0", 2)]
)
def test_a_counter_that_is_compared_with_a_constant_says_how_often(bound, trips):
    """As programs for a TPU have it; a bound that is no constant says nothing."""
    plain = "ROOT %yes = pred[] constant(true)"
    compared = f"""\
%i = s32[]{{:T(128)}} get-tuple-element(%p), index=0
  %n = s32[]{{:T(128)}} {bound}
  ROOT %yes = pred[]{{:T(512)}} compare(%i, %n), direction=LT, metadata={{op_name="jit(f)/while/cond/lt"}}"""
    text = TEXT.replace(plain, compared).replace(
        ', backend_config={"known_trip_count":{"n":"5"}}', ""
    )
    assert compared in text and "known_trip_count" not in text
    found = program_cost(text, unknown_trips=2)
    assert found.collectives["all-reduce"] == trips
    assert found.unknown_loops == (trips == 2)


def test_a_convolution_counts_its_kernel():
    text = """\
HloModule m

ENTRY %main (x: f32[3,8], w: f32[8,7]) -> f32[3,7] {
  %x = f32[3,8]{1,0} parameter(0)
  %w = f32[8,7]{1,0} parameter(1)
  ROOT %c = f32[3,7]{1,0} convolution(%x, %w), dim_labels=bf_io->bf
}
"""
    assert program_cost(text).flops == 2 * 3 * 8 * 7


def test_a_batch_of_products_written_as_a_convolution_counts_once():
    """[5, 3, 8] x [5, 8, 7] as a TPU's compiler writes it: the window is as wide as the batch."""
    text = """\
HloModule m

ENTRY %main (x: f32[5,3,8], w: f32[5,8,7]) -> f32[5,3,7] {
  %x = f32[5,3,8]{2,1,0} parameter(0)
  %w = f32[5,8,7]{2,1,0} parameter(1)
  ROOT %c = f32[5,3,7]{2,1,0} convolution(%x, %w), window={size=5 stride=4 lhs_dilate=5}, dim_labels=0bf_0io->0bf
}
"""
    assert program_cost(text).flops == 2 * 5 * 3 * 8 * 7


def test_a_convolution_over_places_counts_those_inside():
    text = """\
HloModule m

ENTRY %main (x: f32[1,6,2], w: f32[3,2,4]) -> f32[1,6,4] {
  %x = f32[1,6,2]{2,1,0} parameter(0)
  %w = f32[3,2,4]{2,1,0} parameter(1)
  ROOT %c = f32[1,6,4]{2,1,0} convolution(%x, %w), window={size=3 pad=1_1}, dim_labels=b0f_0io->b0f
}
"""
    assert program_cost(text).flops == 2 * 2 * 4 * (6 * 3 - 2)


def test_other_text_is_refused():
    with pytest.raises(ValueError, match="no ENTRY"):
        program_cost("hello")
