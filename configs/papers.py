"""The papers' own settings, for whoever has the machines: models, data, budgets, optimizer.

Models are directories below `checkpoints`; data sets are known by name (docs/data.md), and
`data.*.path` names a copy on disk. docs/presets.md says what the papers leave open, and what each
setting weighs on a mesh.

MOTAB (2605.19433), Qwen3-4B taught by Qwen3-32B, mean over 11 columns: 66.64; AIME24 pass@1 34.17.
SFT 52.77, RFT 51.65, ImitKD 55.02, SKD 59.37. ATESD (2605.11458), Average@12 on AIME24, AIME25,
HMMT Feb 25 and their mean: 1.7B 59.17, 44.72, 29.17, 44.35; 4B 78.06, 71.39, 47.50, 65.65; 8B
80.56, 72.50, 48.33, 67.13. None of these has been repeated with this code.
"""

import ml_collections

BOXED = "{problem}\nPlease reason step by step, and put your final answer within \\boxed{}."
# What no training set may hold.
HELD_OUT = ("aime24", "aime25", "hmmt25", "math500")
OPSD_CLIP = {"1_7b": 0.05, "4b": 0.05, "8b": 0.06}
ATESD_SIZES = {"1_7b": "Qwen3-1.7B", "4b": "Qwen3-4B", "8b": "Qwen3-8B"}


def motab_32b_to_4b(config: ml_collections.ConfigDict) -> None:
    """Qwen3-32B teaching Qwen3-4B on LIMO-v2: five trajectories of each of 800 questions."""
    config.seed = 42
    config.student.path = "checkpoints/Qwen3-4B-Instruct-2507"
    config.teacher.path = "checkpoints/Qwen3-32B"
    config.student.dtype = config.teacher.dtype = "bfloat16"
    config.student.remat = "full"
    config.student.lora.rank = 0  # full parameters
    # The teacher thinks unless it is told not to, and the student cannot be told: one template, the
    # teacher's, renders both, without thinking.
    config.prompt.template = config.teacher.path
    config.student.thinking = config.teacher.thinking = "off"
    config.mesh.update({"data": 1, "fsdp": -1, "tensor": 4})
    config.prompt.update({"format": BOXED, "max_tokens": 2048})
    config.data.train.update({"name": "limo_v2", "size": 0})
    config.data.train.filter.update({"unique": True, "against": HELD_OUT})
    config.data.validation.update({"name": "", "size": 0})
    config.data.test.update({"name": "aime24", "size": 0})
    config.data.long.update({"name": "aime25", "size": 0})
    config.motab.update(
        {
            "signal": "likelihood",
            "gamma_0": 0.3,
            "alpha": 1.0,
            "boundary": "adaptive",
            "entropy_top_k": 20,
            "delimiter": ".\n\n",
            "revision_text": "However,\n\n",
            "student_temperature": 0.6,
            "teacher_temperature": 0.6,
            "correction": "backtrack",
            "stitch": True,
            "loss_on": "eq11",
            "safe_loss": "likelihood",
            "max_step_tokens": 8192,
            "max_total": 32768,
            "max_correction": 32768,
            "min_correction": 256,
            "chunk": 256,
        }
    )
    # Five of a prompt, and packed rows as long as the longest text.
    config.synthesis.update(
        {
            "mode": "offline",
            "trajectories_per_prompt": 5,
            "trajectories": 4000,
            "slots": 128,
            "pack_to": 32768 + 2048,
        }
    )
    # Six epochs of rows that hold four trajectories: set it when the file says how many there are.
    config.steps, config.batch_size = 188, 32
    config.optimizer.update(
        {
            "learning_rate": 5e-5,
            "final_learning_rate": 1e-6,
            "schedule": "cosine",
            "warmup_fraction": 0.05,
            "b1": 0.9,
            "b2": 0.95,
            "eps": 1e-8,
            "weight_decay": 0.1,
            "decay": "matrices",
            "clip_norm": 1.0,
        }
    )
    config.evaluation.update(
        {"samples": 8, "temperature": 0.6, "top_p": 0.95, "max_tokens": 32768, "batch_size": 64}
    )
    config.checkpoint.update({"every": 47, "max_to_keep": 6, "keep_best": False})


def atesd_qwen3(config: ml_collections.ConfigDict, size: str) -> None:
    """Qwen3 of `size`, one of `ATESD_SIZES`, with adapters, on the mathematics of OpenThoughts."""
    config.student.path = f"checkpoints/{ATESD_SIZES[size]}"
    config.student.update({"dtype": "bfloat16", "remat": "full"})
    config.student.lora.update(
        {"rank": 64, "alpha": 128.0, "targets": ("q", "k", "v", "o", "gate", "up", "down")}
    )
    # The student answers without thinking, its teacher with.
    config.student.thinking, config.exposure.thinking = "off", "on"
    config.mesh.update({"data": -1, "fsdp": 8, "tensor": 1})
    config.prompt.update({"format": BOXED, "max_tokens": 1024})
    config.data.train.update({"name": "openthoughts", "size": 0, "on_error": "skip"})
    config.data.train.filter.update(
        {"needs_reference": True, "unique": True, "against": HELD_OUT, "max_problem": 2000}
    )
    config.data.validation.update({"name": "math500", "size": 64})
    config.data.test.update({"name": "aime24", "size": 0})
    config.data.long.update({"name": "aime25", "size": 0})
    config.rollout.update(
        {"student_temperature": 1.1, "student_top_p": 0.95, "student_top_k": 20, "max_total": 1024}
    )
    config.synthesis.update({"mode": "online", "trajectories_per_prompt": 1, "sync_every": 1})
    config.loss.update(
        {
            "divergence": "forward_kl",
            "temperature": 1.1,
            "clip": "summand",
            "clip_at": OPSD_CLIP[size],
        }
    )
    # The teacher is the student before training, and is asked about every row's reference.
    config.exposed.update({"weights": "frozen", "probe_exposure": 0.5, "grounding_rows": 0})
    # L is the paper's; the rest it leaves open: docs/atesd.md.
    config.controller.update(
        {
            "policy": "learned",
            "hold": 5,
            "look_ahead": 20,
            "discount": 0.95,
            "lambda_gt": 0.5,
            "standardise_reward": True,
            "reward_loss": "train",
            "decisions_per_update": 4,
            "learning_rate": 3e-3,
            "hidden": 32,
            "entropy_target": -0.15,
            "entropy_weight": 0.01,
            "entropy_warmup": 20,
            "exposure_min": 0.05,
            "exposure_max": 0.95,
            "ema_decay": 0.9,
            "groups": 1,
        }
    )
    config.exposure.update(
        {
            "template": "opsd",
            "unit": "sentence",
            "max_head": 2048,
            "max_reasoning": 8192,
            "max_answer": 256,
            "max_tail": 512,
            "probe_size": 32,
        }
    )
    config.steps, config.batch_size = 100, 32
    config.optimizer.update(
        {
            "learning_rate": 5e-6,
            "final_learning_rate": 5e-6,
            "schedule": "constant",
            "warmup_fraction": 0.0,
            # What OPSD's framework takes where nothing is said.
            "b1": 0.9,
            "b2": 0.999,
            "eps": 1e-8,
            "weight_decay": 0.0,
            "decay": "matrices",
            "clip_norm": 0.1,
        }
    )
    config.evaluation.update(
        {"samples": 12, "temperature": 1.0, "top_p": 0.95, "max_tokens": 38912, "batch_size": 32}
    )
    config.checkpoint.update({"every": 20, "max_to_keep": 5, "keep_best": True})
