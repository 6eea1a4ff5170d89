"""MOTAB on the embedded task, or on any pair of Hugging Face directories that share a tokenizer.

    python -m experiments.run --config configs/motab.py              the main job: synthesise, train
    python -m experiments.run --config configs/motab.py:online       fresh trajectories every step, of
                                                                     weights refreshed every 50
    python -m experiments.run --config configs/motab.py:smoke        the same code in seconds

A field is set with `--config.motab.gamma_0=0.5`; an unknown one is an error. For a pair of your own,
set `student.path`, `teacher.path`, the data sets and `prompt.format`, and the budgets to the
paper's (the defaults of `motab.MotabSettings`).
"""

import ml_collections

ARGUMENTS = ("", "online", "smoke")


def get_config(arg: str = "") -> ml_collections.ConfigDict:
    """The config of the variant `arg`, one of `ARGUMENTS`.

    Raises:
      ValueError: there is no such variant.
    """
    if arg not in ARGUMENTS:
        raise ValueError(f"configs/motab.py:{arg}: the variants are {', '.join(ARGUMENTS[1:])}.")
    config = ml_collections.ConfigDict(
        {
            "method": "motab",
            "seed": 0,
            "steps": 200,
            "batch_size": 32,  # trajectories per update
            "student": {"path": "embedded:student", "dtype": "float32", "remat": "none"},
            "teacher": {"path": "embedded:teacher", "dtype": "float32"},
            "mesh": {"data": -1, "fsdp": 1, "tensor": 1},
            "prompt": {"format": "{problem}", "chat": True, "max_tokens": 48},
            "data": {
                "train": _data("chain/train", 1024),
                "validation": _data("chain/validation", 128),
                "test": _data("chain/test", 512),
                "long": _data("chain/long", 256),  # longer than any problem trained on
            },
            # The paper's gamma_0 is .3. With steps of ten characters one wrong digit lowers V only
            # to .3 to .6, so that .7 does here what .3 does on real text.
            "motab": {
                "signal": "likelihood",
                "gamma_0": 0.7,
                "alpha": 1.0,
                "boundary": "adaptive",
                "entropy_top_k": 20,
                "delimiter": ".\n\n",
                "revision_text": "However,\n\n",
                "student_temperature": 0.6,
                "teacher_temperature": 0.6,
                "max_step_tokens": 32,
                "max_total": 192,
                "max_correction": 112,
                "min_correction": 16,
                "correction": "backtrack",
                "stitch": True,
                "loss_on": "eq11",
                "safe_loss": "likelihood",
                "jsd_beta": 0.5,
                "chunk": 32,
            },
            "synthesis": {
                "mode": "offline",  # the paper's: synthesise once, then epochs over the file
                "trajectories_per_prompt": 2,
                "trajectories": 2048,  # offline: how many to synthesise
                "file": "",  # offline: a file of `experiments.synthesize`; "" makes its own
                "sync_every": 1,  # online: steps between refreshes of the rollout's weights
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
                "clip_norm": 1.0,
            },
            "evaluation": {
                "samples": 1,
                "temperature": 0.6,
                "top_p": 0.95,
                "max_tokens": 192,
                "batch_size": 128,
            },
            # A checkpoint is validated when it is written.
            "checkpoint": {"every": 50, "max_to_keep": 2, "keep_best": True},
            # Readable trajectories: how many, and every how many steps.
            "samples": {"rows": 4, "every": 20},
        }
    )
    if arg == "online":
        config.synthesis.mode = "online"
        config.synthesis.trajectories_per_prompt = 1
        # Rollouts from weights that are always fresh collapse on this task: see README.
        config.synthesis.sync_every = 50
    if arg == "smoke":
        config.steps = 12
        config.synthesis.trajectories = 128
        config.data.validation.size = 32
        config.data.test.size = 64
        config.data.long.size = 32
        config.evaluation.batch_size = 32
        config.checkpoint.every = 6
        config.samples.every = 4
    return config


def _data(name: str, size: int) -> dict:
    """A data set: a split of the embedded task, or the path of a .jsonl or .json file.

    `fields` names the fields of a file's records where they are not found by themselves; the steps
    are the embedded task's difficulty, 0 standing for 2 to 5.
    """
    fields = {"problem": "", "answer": "", "reference": ""}
    task = {"seed": 0, "min_steps": 0, "max_steps": 0}
    return {"name": name, "size": size, "fields": fields, "incomplete": "error", **task}
