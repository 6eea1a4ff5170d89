"""Tunix: its sampler, its distillation trainer's step, and the two in turns, on-policy."""

from __future__ import annotations

import json
import pathlib
import time

import bench_protocol


class _Tokenizer:
    """Prompts are ids in decimal, so that the sampler's strings stand for given tokens."""

    def encode(self, text, **kwargs):
        return [int(word) for word in text.split()]

    def decode(self, ids, **kwargs):
        return ""

    def bos_id(self):
        return 0

    def eos_id(self):
        return 0

    def pad_id(self):
        return 0


def _load(path, dtype, param_dtype):
    from tunix.models.qwen3 import model as qwen3
    from tunix.models.qwen3 import params as qwen3_params

    c = json.loads((pathlib.Path(path) / "config.json").read_text())
    theta = c.get("rope_theta") or c["rope_parameters"]["rope_theta"]
    config = qwen3.ModelConfig(
        num_layers=c["num_hidden_layers"],
        vocab_size=c["vocab_size"],
        embed_dim=c["hidden_size"],
        hidden_dim=c["intermediate_size"],
        num_heads=c["num_attention_heads"],
        head_dim=c["head_dim"],
        num_kv_heads=c["num_key_value_heads"],
        rope_theta=int(theta),
        norm_eps=c["rms_norm_eps"],
        use_tied_embedding=c["tie_word_embeddings"],
        dtype=dtype,
        param_dtype=param_dtype,
    )
    return qwen3_params.create_model_from_safe_tensors(str(path), config, dtype=param_dtype), config


class _Sampler:
    """`tunix.generate.sampler.Sampler` on fixed prompts, drawing at temperature 1, unfiltered."""

    def __init__(self, session, model, config, shape):
        from tunix.generate import sampler

        size = shape["prompt"] + shape["new"]
        self.sampler = sampler.Sampler(
            model,
            _Tokenizer(),
            sampler.CacheConfig(size, config.num_layers, config.num_kv_heads, config.head_dim),
        )
        rows = session.tokens(shape["batch"], shape["prompt"])
        self.prompts = [" ".join(map(str, row)) for row in rows]
        self.shape, self.never, self.seed = shape, config.vocab_size, 0

    def __call__(self):
        """Prompts [B, P] and completions [B, N] as NumPy arrays."""
        import numpy as np

        self.seed += 1
        out = self.sampler(
            self.prompts,
            max_generation_steps=self.shape["new"],
            max_prompt_length=self.shape["prompt"],
            eos_tokens=[self.never],  # no token has this id: nothing ends early
            temperature=1.0,
            top_p=1.0,
            seed=self.seed,
        )
        return np.asarray(out.padded_prompt_tokens), np.stack([np.asarray(x) for x in out.tokens])


def _generate(session, dtype):
    shape = session.request["decode"]
    model, config = _load(session.request["student"], dtype, dtype)
    sampler = _Sampler(session, model, config, shape)

    def repeat():
        completions = sampler()[1]
        assert completions.shape == (shape["batch"], shape["new"]), completions.shape

    session.measure(repeat)
    session.facts["tokens"] = shape["batch"] * shape["new"]


def _strategy(shape):
    import jax
    import jax.numpy as jnp
    from tunix.distillation.strategies import base_strategy

    def forward(model, input_tokens, input_mask):
        positions = jnp.broadcast_to(jnp.arange(input_tokens.shape[1]), input_tokens.shape)
        causal = jnp.tril(jnp.ones((input_tokens.shape[1],) * 2, bool))
        mask = causal[None] & input_mask[:, None, :]
        logits, _ = model(input_tokens, positions, None, mask)
        return logits[:, shape["prompt"] - 1 : -1]  # the divergence runs over the completion

    class ReverseKL(base_strategy.BaseStrategy):
        """Full-vocabulary KL(student, teacher): Tunix's own logit strategy has the forward KL."""

        def compute_loss(self, student_output, teacher_output, labels):
            del labels
            log_p = jax.nn.log_softmax(student_output)
            log_q = jax.nn.log_softmax(teacher_output)
            return jnp.mean(jnp.sum(jnp.exp(log_p) * (log_p - log_q), axis=-1))

        def compute_eval_loss(self, student_output, labels):
            raise NotImplementedError

    return ReverseKL(forward, forward, lambda input_tokens, input_mask: input_tokens)


def _train(session, dtype, on_policy):
    import jax
    import jax.numpy as jnp
    import numpy as np
    import optax
    from flax import nnx
    from tunix.distillation import distillation_trainer

    request = session.request
    shape, optim = request["train"], request["optimizer"]
    student, config = _load(request["student"], dtype, jnp.float32)
    teacher, _ = _load(request["teacher"], dtype, dtype)
    optimizer = optax.chain(
        optax.clip_by_global_norm(optim["clip_norm"]),
        optax.adamw(
            optim["learning_rate"],
            b1=optim["b1"],
            b2=optim["b2"],
            eps=optim["eps"],
            weight_decay=optim["weight_decay"],
        ),
    )
    trainer = distillation_trainer.DistillationTrainer(
        student,
        teacher,
        _strategy(shape),
        optimizer,
        distillation_trainer.TrainingConfig(eval_every_n_steps=10**9, max_steps=None),
    )
    length = shape["prompt"] + shape["new"]
    tokens = np.asarray(session.tokens(shape["batch"], length), np.int32)
    sampler = _Sampler(session, student, config, shape) if on_policy else None

    def batch():
        text = tokens
        if sampler is not None:
            sampler.sampler.transformer_state = nnx.variables(student)
            text = np.concatenate(sampler(), axis=1).astype(np.int32)
        mask = np.ones(text.shape, bool)
        return distillation_trainer.TrainingInput(input_tokens=text, input_mask=mask)

    def batches():
        """The trainer asks for a batch when it has sent its step off: here steps begin and end."""
        first = 0.0
        for step in range(2**31):
            if step == 2:
                session.ready(first)
            if step >= 2 and not session.wait():
                return
            started = time.perf_counter()
            yield batch()
            jax.block_until_ready(nnx.state(student))
            seconds = time.perf_counter() - started
            if step == 0:
                first = seconds
            elif step >= 2:
                session.report(seconds)

    trainer.train(batches(), cache_nnx_graph=True)
    session.facts["tokens"] = shape["batch"] * length


def measure(session: bench_protocol.Session) -> None:
    """Decoding, a distillation step on given tokens, or one on tokens sampled first."""
    import jax.numpy as jnp
    import tunix  # noqa: F401

    session.packages = ("google-tunix", "jax", "flax")
    dtype = jnp.dtype(session.request["dtype"])
    if session.request["what"] == "generate":
        _generate(session, dtype)
    else:
        _train(session, dtype, session.request["what"] == "onpolicy")


if __name__ == "__main__":
    bench_protocol.serve(measure)
