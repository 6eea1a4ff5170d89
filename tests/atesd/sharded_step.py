"""Run in a process with 8 fake devices: ATESD's step on meshes against one device.

`python sharded_step.py 2x2x2 2x2x2/2 ...`, devices along data, fsdp and tensor; and micro-batches.
"""

from __future__ import annotations

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from mesh_checks import assert_close, assert_divided, assert_placed, mesh_of

import models
from atesd import (
    ControllerSettings,
    ControllerState,
    ExposedBatch,
    LossSettings,
    ReferenceWidths,
    TeacherSettings,
    init_method_state,
    make_train_step,
    pack_references,
)
from atesd.control.moments import Moments
from atesd.references import ReferenceTokens
from distill.rollouts.assembly import assemble
from distill.train.sharding import batch_sharding, state_shardings, whole
from distill.train.state import create_state
from distill.trajectories import Source

VOCAB, PROMPT, RESPONSE, ROWS, STEPS = 32, 5, 9, 8, 3
WIDTHS = ReferenceWidths(head=4, reasoning=12, answer=2, tail=4)
# Rewarded after a single update, so that the third step trains the policy. Moving averages would
# lie close to one another, and the deviations that the policy sees would have few digits left.
CONTROLLER = ControllerSettings(
    groups=3, hold=1, look_ahead=1, decisions_per_update=2, hidden=8, entropy_warmup=0, ema_decay=0.0
)  # fmt: skip
TEACHER = TeacherSettings(weights="ema", decay=0.5, grounding_rows=4)


def batch(seed: int) -> ExposedBatch:
    rng = np.random.default_rng(seed)

    def ids(n: int) -> tuple[int, ...]:
        return tuple(rng.integers(1, VOCAB, n).tolist())

    prompts = rng.integers(1, PROMPT + 1, ROWS)
    responses = np.array([RESPONSE, 0, *rng.integers(1, RESPONSE + 1, ROWS - 2)])
    text = rng.integers(1, VOCAB, (ROWS, PROMPT + RESPONSE))
    reasonings = rng.integers(0, WIDTHS.reasoning + 1, ROWS)
    references = [
        ReferenceTokens(ids(3), ids(n), ids(2), ids(4), tuple(range(n + 1)), True, n == 0, False)
        for n in reasonings
    ]
    trajectories = assemble(
        jnp.asarray(text), jnp.full(text.shape, Source.STUDENT), jnp.asarray(prompts),
        jnp.asarray(prompts + responses), "divergence",
    )  # fmt: skip
    return ExposedBatch(trajectories, pack_references(references, WIDTHS))


def undifferenced(state: ControllerState) -> ControllerState:
    """With sums in place of differences of nearly equal observations, which have fewer digits."""

    def raw(m: Moments) -> Moments:
        return m.replace(squares=m.squares + m.count * m.mean**2)

    loss_G, completed = state.pending.loss_G, state.completed
    gains = completed.gain_moments
    return state.replace(
        readings=state.readings.replace(moments=raw(state.readings.moments)),
        pending=state.pending.replace(gain_CxG=state.pending.gain_CxG + loss_G),
        completed=completed.replace(
            gain_NxG=completed.gain_NxG + loss_G,
            gain_moments=raw(gains.replace(mean=gains.mean + jnp.mean(loss_G))),
            grounding_moments=raw(completed.grounding_moments),
        ),
        gain_G=state.gain_G + loss_G,
    )


def main(names: list[str]) -> None:
    plain = models.ModelConfig("qwen3", VOCAB, 32, 64, 2, 4, 4, 8, qk_norm=True)
    params = models.init(jax.random.key(0), plain)
    params = {**params, "head": params["head"] * 4}  # so that contexts matter
    # The momentum after the first step is the gradient itself.
    optimizer = optax.sgd(0.3, momentum=0.9)

    def run(config: models.ModelConfig, parts: int = 1):
        step = make_train_step(
            config, config, LossSettings(), CONTROLLER, TEACHER, optimizer, STEPS, RESPONSE, 0, parts
        )  # fmt: skip
        carried = init_method_state(params, jax.random.key(4), CONTROLLER, TEACHER)
        state = create_state(params, optimizer, carried)
        places, rows = None, None
        if config.mesh is not None:
            places = state_shardings(state, optimizer, config, config.mesh)
            rows = batch_sharding(config.mesh)
            state = jax.device_put(state, places)
        out = None if config.mesh is None else (places, whole(config.mesh))
        jitted = jax.jit(step, out_shardings=out)
        if config.mesh is not None:
            inputs = state, None, jax.device_put((batch(0), batch(100)), rows)
            assert_divided(jitted.lower(*inputs).compile(), inputs, config.mesh)
        history = []
        for seed in range(STEPS):
            inputs = jax.device_put((batch(seed), batch(100)), rows)
            state, metrics = jitted(state, None, inputs)
            if places is not None:
                assert_placed(state, places, "state")
            history.append(jax.device_get((state, metrics)))
        return history

    single = run(plain)
    assert single[-1][1]["controller_updates"] == 1 and single[1][1]["gain"] > 0
    for name in names:
        mesh, _, parts = name.partition("/")
        several = run(plain.replace(mesh=mesh_of(mesh)), int(parts or 1))
        for k, ((a, m), (b, n)) in enumerate(zip(single, several, strict=True)):
            where = f"{name}, step {k}: "
            trees = [(x.params, x.opt_state, x.method_state["teacher_params"]) for x in (b, a)]
            worst = assert_close(*trees, where)
            if parts:  # the controller's features are differences: test_micro_batches has them
                continue
            controllers = (undifferenced(x.method_state["controller"]) for x in (b, a))
            assert_close(*controllers, where)
            # Differences of what is nearly equal; the controller's arrays [G] of them were
            # compared.
            differences = {x for x in m if x.startswith(("gain", "decision_reward"))}
            assert_close(*({x: y[x] for x in y if x not in differences} for y in (n, m)), where)
        print(f"{name}: {worst:.1e}")


if __name__ == "__main__":
    jax.config.update("jax_default_matmul_precision", "highest")
    main(sys.argv[1:])
    print("equal")
