"""ATESD on the embedded task: self-distillation from a teacher that sees a part of the reference.

    python -m experiments.run --config configs/atesd.py              the controller decides how much
    python -m experiments.run --config configs/atesd.py:per_sample   each difficulty tercile apart
    python -m experiments.run --config configs/atesd.py:one_step     credit: the next update alone
    python -m experiments.run --config configs/atesd.py:short_delay  credit: the next five
    python -m experiments.run --config configs/atesd.py:no_grounding credit: no G_gt
    python -m experiments.run --config configs/atesd.py:fixed        a = .5 throughout; set it with
                                                                     --config.controller.fixed
    python -m experiments.run --config configs/atesd.py:random       a drawn uniformly
    python -m experiments.run --config configs/atesd.py:schedule     a by hand, from 1 to .3
    python -m experiments.run --config configs/atesd.py:smoke        the same code in seconds
    python -m experiments.run --config configs/atesd.py:qwen3_4b     the paper's own setting, on
                                                                     accelerators: docs/presets.md;
                                                                     likewise qwen3_1_7b, qwen3_8b

ATESD (2605.11458), mean of AIME24, AIME25 and HMMT25 (Average@12) for Qwen3-1.7B, 4B and 8B: 44.35,
65.65 and 67.13; OPSD (`configs/opsd.py`) 43.4, 63.6 and 64.8. On AIME24 with 1.7B: one-step credit
52.22, short delay 56.11, without G_gt 58.06, full 59.17; fixed .5 57.44, random 54.94.

For a model of your own set `student.path`, the data (with references), `exposure.template` to
`opsd` (`atesd.prompts.DEFAULT_TEMPLATE`) or your own text, and the widths. OPSD's settings:
learning rate 5e-6, clip_norm .1, rollouts of 1024 tokens at temperature 1.1, top-p .95, top-k 20,
`loss.temperature` 1.1, `loss.clip` summand at .05, 100 updates of 32 rollouts.
"""

import ml_collections

from configs import common, papers

CONTROLLERS: dict[str, dict] = {
    "": {},
    "per_sample": {"groups": 3},
    "one_step": {"look_ahead": 1},
    "short_delay": {"look_ahead": 5},
    "no_grounding": {"lambda_gt": 0.0},
    "fixed": {"policy": "fixed", "fixed": 0.5},
    "random": {"policy": "random"},
    "schedule": {"policy": "schedule", "schedule": ((0, 1.0), (150, 0.3))},
}
PRESETS = {f"qwen3_{size}": size for size in papers.ATESD_SIZES}
VARIANTS = (*CONTROLLERS, *PRESETS)
ARGUMENTS = (*VARIANTS, "smoke", "per_sample-smoke", "fixed-smoke")


def get_config(arg: str = "") -> ml_collections.ConfigDict:
    """The config of the variant `arg`: one of `VARIANTS`, `smoke`, or both.

    Raises:
      ValueError: there is no such variant.
    """
    variant, small = common.parse("atesd.py", arg, VARIANTS)
    fields = common.shared()
    del fields["teacher"]  # the student itself, before training
    fields["student"]["path"] = "embedded:reader"
    config = ml_collections.ConfigDict(
        {
            "method": "atesd",
            **fields,
            "rollout": {
                "student_temperature": 1.0,
                "student_top_p": 1.0,
                "student_top_k": 0,
                "max_total": 96,
            },
            "exposure": {
                "template": "R:{reference}\n#\n{problem}",
                "unit": "sentence",
                # The teacher's. OPSD and ATESD: "on", with student.thinking="off".
                "thinking": "default",
                "max_head": 16,
                "max_reasoning": 128,
                "max_answer": 16,
                "max_tail": 64,
                "probe_size": 16,
            },
            "exposed": {
                "weights": "frozen",
                "decay": 0.99,
                "probe_exposure": 0.5,
                "grounding_rows": 4,
            },
            "loss": {
                "divergence": "forward_kl",
                "jsd_beta": 0.5,
                "temperature": 1.0,
                "clip": "none",
                "clip_at": 0.05,
                "difficulty": "confidence",
            },
            "controller": {
                "policy": "learned",
                "fixed": 1.0,
                "schedule": (),
                "hold": 5,
                "look_ahead": 20,
                "discount": 0.95,
                "lambda_gt": 0.5,
                "standardise_reward": True,
                "reward_loss": "train",
                "decisions_per_update": 4,
                # A run holds 26 completed decisions, 6 policy updates: at 3e-3 it stays put.
                "learning_rate": 3e-2,
                "hidden": 32,
                "entropy_target": -0.15,
                "entropy_weight": 0.01,
                "entropy_warmup": 20,
                "exposure_min": 0.05,
                "exposure_max": 0.95,
                "ema_decay": 0.9,
                "groups": 1,
                **CONTROLLERS.get(variant, {}),
            },
            "synthesis": common.online(),
        }
    )
    config.steps = 150
    config.optimizer.learning_rate = 1e-3
    if variant in PRESETS:
        papers.atesd_qwen3(config, PRESETS[variant])
    if small:
        common.smoke(config)
        config.exposure.probe_size = 8
        config.controller.hold, config.controller.decisions_per_update = 2, 2
        if config.controller.policy == "learned":
            config.controller.look_ahead = 3
    return config
