r"""How the embedded models were made: supervised training on the chain task, and on tales.

    python -m experiments.run --config configs/pretrain.py:teacher --workdir runs/teacher
    python -m experiments.export --workdir runs/teacher --out models/embedded/teacher
    python -m experiments.run --config configs/pretrain.py:student --workdir runs/student
    python -m experiments.export --workdir runs/student --out models/embedded/student
    python -m experiments.run --config configs/pretrain.py:reader --workdir runs/reader
    python -m experiments.export --workdir runs/reader --out models/embedded/reader

The teacher reads and writes both styles, half of the time each. The student learns its own style
without a fault, and then, from `data.train.misconceptions_from` on, to hold 60 of the 240 one-step
facts wrong. The reader is the student taught to use a reference block
(`experiments/tasks/chain.py`), with the same misconceptions: its own teacher.
`tale_teacher` and `tale_student` are teacher and student of the tales
(`experiments/tasks/tale.py`), made alike, of texts that repair 5 % of their steps.
"""

import ml_collections

from configs import common

ROLES = ("teacher", "student", "reader", "tale_teacher", "tale_student")


def get_config(arg: str = "teacher") -> ml_collections.ConfigDict:
    """The config that makes the embedded `arg`, one of `ROLES`.

    Raises:
      ValueError: there is no such role.
    """
    if arg not in ROLES:
        raise ValueError(f"configs/pretrain.py:{arg}: choose one of {', '.join(ROLES)}.")
    teacher, tale = arg.endswith("teacher"), arg.startswith("tale")
    config = ml_collections.ConfigDict(
        {
            "method": "sft",
            "seed": 0,
            "steps": 1000,
            "batch_size": 32,
            "stop_after_skipped": 5,
            "student": {
                "tokenizer": "embedded:tale-tokenizer" if tale else "embedded:tokenizer",
                "init": {
                    "family": "qwen3",
                    "vocab_size": 251 if tale else 98,
                    "hidden_size": 128 if teacher else 64,
                    "intermediate_size": 384 if teacher else 192,
                    "num_layers": 3,
                    "num_heads": 4,
                    "num_kv_heads": 4 if tale else 2,
                    "head_dim": 32 if teacher else 16,
                    "qk_norm": True,
                    "tie_embeddings": True,
                    "max_positions": 1024,
                },
                "thinking": "default",
                "dtype": "float32",
                "remat": "none" if tale else "dots",
                "attention": "auto",
                "rules": common.rules(),
            },
            "mesh": {"data": -1, "fsdp": 1, "tensor": 1},
            "prompt": {
                "format": "{problem}",
                "system": "",
                "chat": True,
                "template": "",
                "max_tokens": 48,
            },
            "data": {
                "train": _data("chain/train", 0, "both" if teacher else "student"),
                "validation": _data("chain/validation", 256),
                "test": _data("chain/test", 512),
                "long": _data("chain/long", 256),
            },
            "sft": {"max_tokens": 208, "shuffle": False, "overlong": "error"},
            "optimizer": {
                "learning_rate": 3e-3,
                "final_learning_rate": 1e-4,
                "schedule": "cosine",
                "warmup_fraction": 0.05,
                "b1": 0.9,
                "b2": 0.95,
                "eps": 1e-8,
                "weight_decay": 0.1,
                "decay": "all",
                "clip_norm": 1.0,
                "micro_batches": 1,
            },
            "evaluation": {
                "samples": 1,
                "temperature": 0.6,
                "top_p": 0.95,
                "max_tokens": 192,
                "batch_size": 128,
            },
            "checkpoint": {"every": 100, "max_to_keep": 2, "keep_best": False},
            "samples": {"rows": 0, "every": 0},
            **common.observation(),
        }
    )
    # All meet chains as long as those of the `long` split; distillation shows them up to 5 steps.
    config.data.train.max_steps = 8
    if tale:
        for split in config.data.values():
            split.name, split.style = split.name.replace("chain", "tale"), "names"
        config.data.train.update({"style": "both" if teacher else "names", "repairs": 0.05})
        config.prompt.max_tokens = 104
        # A few of the longest, with many repairs, are left out.
        config.sft.update({"max_tokens": 200, "overlong": "drop"})
    if not teacher:
        config.data.train.misconceptions = 60
    if arg.endswith("student"):
        config.steps = 1300
        config.data.train.misconceptions_from = 1000 * config.batch_size
    if arg == "reader":
        config.steps = 500
        config.student = {
            "path": "embedded:student",
            "thinking": "default",
            "dtype": "float32",
            "remat": "dots",
            "attention": "auto",
        }
        config.data.train.reference_block = 0.75
        config.prompt.max_tokens = 144  # a block of up to 8 steps, and the question
        config.sft.max_tokens = 240
    return config


def _data(name: str, size: int, style: str = "student") -> dict:
    return {
        "name": name,
        "size": size,
        "min_steps": 0,  # 0 takes the split's own: 2 to 5, or 6 to 8
        "max_steps": 0,
        "style": style,
        "misconceptions": 0,
        "misconception_rate": 0.75,
        "misconceptions_from": 0,
        "reference_block": 0.0,
        "repairs": 0.0,
    }
