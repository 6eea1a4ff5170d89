"""What the arms of a comparison share: models, data, optimizer, evaluation; the smoke variant."""

from collections.abc import Sequence

import ml_collections


def shared() -> dict:
    """The fields that have nothing to do with a method: the embedded task and models."""
    return {
        "seed": 0,
        "steps": 200,
        "batch_size": 32,  # trajectories per update
        # A step whose loss or gradient is not finite changes nothing; so many in a row end the run.
        "stop_after_skipped": 5,
        "student": {
            "path": "embedded:student",
            "thinking": "default",  # or "on", "off": the chat template's switch
            "dtype": "float32",
            "remat": "dots",
            # "auto", "xla", "cudnn" (GPU) or "splash" (TPU), of training and scoring passes.
            "attention": "auto",
            # Mesh axes that split the axes of parameters and activations; () keeps one whole.
            "rules": rules(),
            # Adapters, which alone train: x W + (alpha / rank) x A B. Rank 0 trains everything.
            # OPSD has rank 64, which is more than the embedded student is wide.
            "lora": {
                "rank": 0,
                "alpha": 128.0,
                "targets": ("q", "k", "v", "o", "gate", "up", "down"),
            },
        },
        "teacher": {
            "path": "embedded:teacher",
            # As the student's, but where the teacher has another prompt.
            "thinking": "default",
            "dtype": "float32",
            "attention": "auto",
            "rules": rules(),
        },
        "mesh": {"data": -1, "fsdp": 1, "tensor": 1},
        # The user's message and, in a chat, a system message; `template` is a .jinja file, or a
        # model's directory, in place of both models' own chat templates.
        "prompt": {
            "format": "{problem}",
            "system": "",
            "chat": True,
            "template": "",
            "max_tokens": 48,
        },
        "data": {
            "train": _data("chain/train", 1024),
            "validation": _data("chain/validation", 128),
            "test": _data("chain/test", 512),
            "long": _data("chain/long", 256),  # longer than any problem distilled on
        },
        "optimizer": {
            "learning_rate": 3e-3,
            "final_learning_rate": 1e-5,
            "schedule": "cosine",
            "warmup_fraction": 0.05,
            "b1": 0.9,
            "b2": 0.95,
            "eps": 1e-8,
            "weight_decay": 0.1,
            "decay": "all",  # these tasks' students were measured so; "matrices" for your own
            "clip_norm": 1.0,
            "micro_batches": 1,  # parts of a batch, one after the other: memory, not results
        },
        "evaluation": {
            "samples": 1,
            "temperature": 0.6,
            "top_p": 0.95,
            "max_tokens": 192,
            "batch_size": 128,
            # How final answers are found: "" as each data set says, or "boxed", "flexible".
            "answer": "",
        },
        # A checkpoint is validated when it is written.
        "checkpoint": {"every": 50, "max_to_keep": 2, "keep_best": True},
        # Readable trajectories: how many, and every how many steps.
        "samples": {"rows": 4, "every": 20},
        **observation(),
    }


def observation() -> dict:
    """Who is told besides the workdir's files, and which updates are traced: none, by default."""
    return {
        # wandb: "off", "offline" or "online". Needs the extra [tracking]: see
        # experiments/workdir/tracking.py.
        "tracking": {"tensorboard": False, "wandb": "off", "project": "motab", "name": ""},
        # Of `steps` updates from `first` on: see experiments/machine/profiler.py. 0 is off.
        "profile": {"first": 3, "steps": 0},
    }


def rules() -> dict:
    """A table of sharding rules: see `models.sharding.DEFAULT_RULES`."""
    return {
        "embed": ("fsdp",),
        "vocab": ("tensor",),
        "heads": ("tensor",),
        "kv_heads": ("tensor",),
        "mlp": ("tensor",),
    }


def _data(name: str, size: int) -> dict:
    """A data set: a split of the embedded task, a known name, hub:OWNER/NAME, or a path.

    `path` is a local copy of a known set; `fields` names the fields of records where they are not
    found by themselves; `answer` is how a response's final answer is found, `boxed`, or `flexible`
    where the prompt asks for no box; `on_error` may `skip` bad records; `filter` has the fields of
    `experiments.data.filters.Filter`. The steps are the embedded task's difficulty, 0 standing for
    2 to 5. See docs/data.md.
    """
    fields = ("problem", "answer", "reference", "id", "source", "group", "choices")
    task = {"seed": 0, "min_steps": 0, "max_steps": 0}
    return {
        "name": name,
        "path": "",
        "subset": "",
        "split": "",
        "size": size,
        "fields": dict.fromkeys(fields, ""),
        "answer": "boxed",
        "on_error": "raise",
        "filter": {
            "where": "",
            "min_problem": 0,
            "max_problem": 0,
            "max_reference": 0,
            "needs_reference": False,
            "unique": False,
            "against": (),
            "ngram": 13,
            "overlap": 0.5,
        },
        **task,
    }


# Trajectories written at the same time: one that has ended makes room for the next. 0 are as many
# as a batch has. Changes speed, not results.
_SLOTS = 0


def in_turns() -> dict:
    """Fields of a rollout in which student and teacher write step by step."""
    return {
        "student_temperature": 0.6,
        "teacher_temperature": 0.6,
        "delimiter": ".\n\n",
        "max_step_tokens": 32,
        "max_total": 192,
        "chunk": 16,  # tokens of a turn; changes speed, not results
    }


def offline(copies: int = 2) -> dict:
    """`copies` trajectories of every prompt, synthesised once; then epochs over the file."""
    return {
        "mode": "offline",
        "trajectories_per_prompt": copies,
        "trajectories": 1024 * copies,  # offline: how many to synthesise
        "file": "",  # offline: a file of `experiments.synthesize`; "" makes its own
        # Offline: tokens of a row that trajectories are packed into; 0: a row for each. Packed, a
        # batch has `batch_size` such rows.
        "pack_to": 0,
        # Offline: whether the teacher's scores are computed once and kept beside the file, as a
        # loss with signal.support="top_k" and signal.top_k_of="teacher" allows.
        "cache_teacher": False,
        "slots": _SLOTS,
    }


def online(sync_every: int = 1) -> dict:
    """Fresh trajectories at every step; `sync_every` steps between refreshes of their weights."""
    return {
        "mode": "online",
        "trajectories_per_prompt": 1,
        "sync_every": sync_every,
        "slots": _SLOTS,
    }


def planned(method: str, plan: dict, copies: int = 8, **surrogate) -> ml_collections.ConfigDict:
    """A method of the family on the student's fresh samples, `copies` to a prompt.

    Args:
      method: a name of `family.METHODS`.
      plan: its own settings.
      surrogate: fields of `family.SurrogateSettings` that are not GRPO's.
    """
    config = ml_collections.ConfigDict(
        {
            "method": method,
            **shared(),
            # Ratios are those of the student's whole distribution.
            "rollout": {
                "student_temperature": 1.0,
                "student_top_p": 1.0,
                "student_top_k": 0,
                "max_total": 192,
            },
            "plan": plan,
            "surrogate": {
                "clip_low": 0.2,
                "clip_high": 0.2,
                "advantage": "std",
                "normalise": "token",
                **surrogate,
            },
            "synthesis": {**online(), "trajectories_per_prompt": copies},
        }
    )
    config.optimizer.learning_rate = 3e-4 if copies > 1 else 3e-3
    return config


def parse(file: str, arg: str, variants: Sequence[str]) -> tuple[str, bool]:
    """Splits `sampled-smoke` into the variant and whether it is to run in seconds.

    Raises:
      ValueError: there is no such variant.
    """
    variant, _, last = arg.rpartition("-")
    if last != "smoke":
        variant = arg
    if variant not in variants or arg == "-smoke":
        names = ", ".join(v for v in variants if v)
        raise ValueError(
            f"configs/{file}:{arg}: the variants are {names + ', ' if names else ''}smoke"
            f"{', and any of them with -smoke' if names else ''}."
        )
    return variant, last == "smoke"


def smoke(config: ml_collections.ConfigDict) -> None:
    """Shrinks any arm to the same code in seconds."""
    config.steps = 12
    if "synthesis" in config and "trajectories" in config.synthesis:
        config.synthesis.trajectories = 128
    config.data.validation.size = 32
    config.data.test.size = 64
    config.data.long.size = 32
    config.evaluation.batch_size = 32
    config.checkpoint.every = 6
    config.samples.every = 4
