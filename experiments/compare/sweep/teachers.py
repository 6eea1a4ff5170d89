"""Teachers of every exposure on the same texts: those of the student before training."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

import atesd
from atesd.grounding import reference_log_probs
from experiments.config.tree import AtesdConfig
from experiments.data.batches import prompt_batches
from experiments.data.sources import load_source
from experiments.methods.atesd import AtesdRecipe
from experiments.pair.pair import load_pair, start_student

MEASURES = ("loss", "mismatch", "disagreement", "reference_nll")


def compare_teachers(
    config: AtesdConfig, exposures: tuple[float, ...], problems: int
) -> dict[str, np.ndarray]:
    """What each exposure does to the teacher, by problem of `data.validation`.

    Args:
      config: of an arm with method `atesd`.
      exposures: A of them.
      problems: P of them, at most; the first.

    Returns:
      by name of `MEASURES` [A, P]: the distillation loss and the mismatch KL(teacher, student), in
      nats per token of the student's own rollouts; the share of their tokens at which the most
      likely tokens differ; and the teacher's NLL of the whole reference, in nats per token.
    """
    recipe = AtesdRecipe(config, load_pair(config))
    pair = recipe.pair
    student = start_student(pair, config.seed)
    teacher = student if pair.teacher_params is None else pair.teacher_params
    assert pair.teacher_config is not None
    teacher_config, eos = pair.teacher_config, pair.eos_ids[0]

    @jax.jit
    def score(student, teacher, batch, exposure):
        scores = atesd.exposed_scores(
            student,
            pair.student_config,
            teacher,
            teacher_config,
            batch.trajectories,
            batch.references,
            exposure[None],
            recipe.loss,
            recipe.max_total,
        )
        contexts, lengths = atesd.expose(batch.references, exposure)
        nll = -reference_log_probs(
            teacher, teacher_config, contexts, lengths, batch.references, eos
        )
        return scores.loss_B, scores.mismatch_B, scores.disagreement_B, nll

    assert config.data.validation is not None
    source = load_source(config.data.validation.spec)
    problems = min(problems, len(source))
    size = min(config.batch_size, problems)
    batches = prompt_batches(
        source,
        pair.render,
        batch_size=size,
        max_prompt_tokens=config.prompt.max_tokens,
        shuffle=False,
    )
    found: list[np.ndarray] = []
    for round_ in range(problems // size):
        batch = next(batches)
        trajectories, record, _ = recipe(student, batch, 1, round_)
        (exposed, _), _ = recipe.training_inputs(trajectories, record, batch, 1)
        scored = [score(student, teacher, exposed, jnp.float32(a)) for a in exposures]
        found.append(np.array(jax.device_get(scored)))  # [A, measures, size]
    values = np.concatenate(found, axis=2)
    return {name: values[:, index] for index, name in enumerate(MEASURES)}
