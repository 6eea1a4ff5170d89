"""Sampling completions for a batch of prompts."""

from __future__ import annotations

import functools

import flax.struct
import jax
import jax.numpy as jnp

from models.config import ModelConfig
from models.decoding.decode import Cache, Cursor, decode, put, unstack
from models.decoding.sampling import Sampling
from models.decoding.slots import Progress, Rows, Slots, run, whole_batch
from models.parameters import Params

_STATIC = ("config", "max_new_tokens", "temperature", "top_p", "top_k", "eos_ids", "vocab_size")
# Tokens written between two checks of whether every row has ended.
_CHUNK = 8


class Generation(flax.struct.PyTreeNode):
    """Completions, right-padded with zeros.

    Attributes:
      tokens_BxN: completion tokens, the end-of-sequence token included.
      lengths_B: completion lengths, in tokens.
      log_probs_sampled_BxN: nats, under the (tempered, filtered) distribution sampled from.
      log_probs_BxN: nats, under the model at temperature 1, unfiltered.
    """

    tokens_BxN: jax.Array
    lengths_B: jax.Array
    log_probs_sampled_BxN: jax.Array
    log_probs_BxN: jax.Array


class WritingState(flax.struct.PyTreeNode):
    """Everything between two chunks.

    Attributes:
      caches: the model's.
      cursor: where every row stands.
      keys_B: keys of the rows' noise.
      prompts_BxP: the prompts.
      written: the completions so far.
    """

    caches: tuple[Cache]
    cursor: Cursor
    keys_B: jax.Array
    prompts_BxP: jax.Array
    written: Generation


def make_slots(
    config: ModelConfig,
    sampling: Sampling,
    max_tokens: int,
    eos_ids: tuple[int, ...],
    chunk_tokens: int = _CHUNK,
) -> Slots:
    """One model writing completions, in parts; they end in a `Generation`.

    Args:
      max_tokens: a completion ends here if no end of sequence came before.
      eos_ids: tokens that end one.
      chunk_tokens: tokens between two looks at which rows have ended. Changes speed, not results.
    """

    def begin(caches: tuple[Cache, ...], rows: Rows) -> WritingState:
        batch = rows.lengths_B.shape[0]
        per_token = jnp.zeros((batch, max_tokens), jnp.float32)
        return WritingState(
            caches=(caches[0],),
            cursor=rows.cursor(),
            keys_B=jax.vmap(jax.random.fold_in)(rows.keys_B, rows.ids_B),
            prompts_BxP=rows.prompts_BxP,
            written=Generation(
                tokens_BxN=jnp.zeros((batch, max_tokens), jnp.int32),
                lengths_B=jnp.zeros(batch, jnp.int32),
                log_probs_sampled_BxN=per_token,
                log_probs_BxN=per_token,
            ),
        )

    def chunk(params: tuple[Params], state: WritingState) -> WritingState:
        old, out = state.cursor, state.written
        cache, new, written = decode(
            params[0], config, state.caches[0], old, state.keys_B, chunk_tokens, sampling, eos_ids
        )
        start, count = old.length_B - old.origin_B, written.count_B
        return state.replace(
            caches=(cache,),
            cursor=new,
            written=Generation(
                tokens_BxN=put(out.tokens_BxN, written.tokens_BxC, start, count),
                lengths_B=out.lengths_B + count,
                log_probs_sampled_BxN=put(
                    out.log_probs_sampled_BxN, written.log_probs_sampled_BxC, start, count
                ),
                log_probs_BxN=put(out.log_probs_BxN, written.log_probs_BxC, start, count),
            ),
        )

    def progress(state: WritingState) -> Progress:
        return Progress(length_B=state.cursor.open_B, written_B=state.written.lengths_B)

    return Slots(
        chunk_tokens=chunk_tokens,
        reach=chunk_tokens,
        max_tokens=max_tokens,
        prepare=lambda params: (unstack(params, config),),
        begin=begin,
        chunk=chunk,
        progress=progress,
        finish=lambda state: state.written,
        configs=(config,),
    )


@functools.partial(jax.jit, static_argnames=_STATIC)
def generate(
    params: Params,
    config: ModelConfig,
    prompts: jax.Array,
    prompt_lengths: jax.Array,
    key: jax.Array,
    max_new_tokens: int,
    temperature: float = 1.0,
    top_p: float = 1.0,
    top_k: int = 0,
    eos_ids: tuple[int, ...] = (),
    row_ids: jax.Array | None = None,
    vocab_size: int | None = None,
) -> Generation:
    """Samples a completion of every prompt until end of sequence or `max_new_tokens`.

    Args:
      prompts: [B, P] token ids, right-padded.
      prompt_lengths: [B], at least 1.
      key: noise of a token is a function of (key, row id, position in the completion) alone.
      temperature: 0 is greedy.
      top_p, top_k: filters; 1.0 and 0 are off.
      eos_ids: a row ends once it has written one of these.
      row_ids: [B] identities of the rows; their index in the batch by default.
      vocab_size: ids from here on are never drawn.

    Returns:
      A `Generation`.

    Example:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> from models.embedded import model_directory
      >>> from models.huggingface.checkpoint import load_pretrained
      >>> from models.text import decode, eos_ids, load_tokenizer, render_prompt
      >>> directory = model_directory("embedded:teacher")
      >>> config, params = load_pretrained(directory)
      >>> tokenizer = load_tokenizer(directory)
      >>> prompt = render_prompt(tokenizer, "a=3,b=+8?")
      >>> out = generate(
      ...     params, config, jnp.array([prompt]), jnp.array([len(prompt)]), jax.random.key(0), 64,
      ...     temperature=0.0, eos_ids=eos_ids(tokenizer, directory),
      ... )
      >>> decode(tokenizer, out.tokens_BxN[0, : out.lengths_B[0]]).split()[:2]
      ['b=3+8=1.', 'c=1+8=9.']
    """
    sampling = Sampling(temperature, top_p, top_k, vocab_size)
    row_ids = jnp.arange(prompts.shape[0]) if row_ids is None else row_ids
    slots = make_slots(config, sampling, max_new_tokens, eos_ids)
    return run(slots, params, whole_batch(slots, prompts, prompt_lengths, key, row_ids))
