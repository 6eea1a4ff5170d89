"""MOTAB on the embedded task, or on any pair of Hugging Face directories that share a tokenizer.

    python -m experiments.run --config configs/motab.py              the main job: synthesise, train
    python -m experiments.run --config configs/motab.py:online       fresh trajectories every step,
                                                                     of weights refreshed every 50
    python -m experiments.run --config configs/motab.py:static       ablation: H = 0 in the boundary
    python -m experiments.run --config configs/motab.py:rewrite      ablation: no backtracking
    python -m experiments.run --config configs/motab.py:no_stitch    ablation: no flawed steps
    python -m experiments.run --config configs/motab.py:smoke        the same code in seconds
    python -m experiments.run --config configs/motab.py:qwen3_32b_to_4b   the paper's setting:
                                                                     docs/presets.md

MOTAB (2605.19433): 66.64 on average with Qwen3-32B teaching Qwen3-4B, 77.62 with gpt-oss-120b;
34.17, 31.67 and 85.6 (AIME24, AIME25, MATH500), with a static boundary 32.50, 29.16 and 84.0,
rewriting at the breach 30.83, 27.91 and 82.8, without stitching 32.08, 29.58 and 83.6; AIME25 for
gamma_0 = .1 to .5: 28.33, 30.42, 31.67, 28.75, 23.33.

A field is set with `--config.motab.gamma_0=0.5`; an unknown one is an error. For a pair of your
own, set `student.path`, `teacher.path`, the data sets and `prompt.format`, and the budgets to the
paper's (the defaults of `motab.MotabSettings`).
"""

import ml_collections

from configs import common, papers

VARIANTS = ("", "offline", "online", "static", "rewrite", "no_stitch", "qwen3_32b_to_4b")
ARGUMENTS = (*VARIANTS, "smoke", "online-smoke")


def get_config(arg: str = "") -> ml_collections.ConfigDict:
    """The config of the variant `arg`: one of `VARIANTS`, `smoke`, or both.

    Raises:
      ValueError: there is no such variant.
    """
    variant, small = common.parse("motab.py", arg, VARIANTS)
    config = ml_collections.ConfigDict(
        {
            "method": "motab",
            **common.shared(),
            # The paper's gamma_0 is .3. This teacher chooses between two styles at the first step:
            # H = ln 2 there halves the boundary, and a wrong digit leaves V at .1 to .2.
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
            # Offline is the paper's; online, the rollout's weights are refreshed every
            # `sync_every`.
            "synthesis": {**common.offline(), "sync_every": 1},
        }
    )
    if variant == "online":
        config.synthesis.mode = "online"
        config.synthesis.trajectories_per_prompt = 1
        # Rollouts from weights that are always fresh collapse on this task: see README.
        config.synthesis.sync_every = 50
    elif variant == "static":
        config.motab.boundary = "static"
    elif variant == "rewrite":
        config.motab.correction = "rewrite"
    elif variant == "no_stitch":
        config.motab.stitch = False
    elif variant == "qwen3_32b_to_4b":
        papers.motab_32b_to_4b(config)
    if small:
        common.smoke(config)
        if variant == "online":
            config.synthesis.sync_every = 4
    return config
