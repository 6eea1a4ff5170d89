"""Packaging: `pip install -e .`; extras: see `extras_require`."""

from pathlib import Path

from setuptools import find_packages, setup

# Tests and notebooks are not installed.
ROOMS = (
    "atesd",
    "configs",
    "distill",
    "experiments",
    "family",
    "grpo",
    "mixtures",
    "models",
    "motab",
    "topd",
)

# Read, not imported: the build has no jax.
VERSION = Path("models/version.py").read_text(encoding="utf-8").split('"')[-2]

TRACKING = ["tensorboardX>=2.6", "wandb>=0.21"]

setup(
    name="motab",
    version=VERSION,
    description="Reasoning distillation in JAX: MOTAB and its neighbours, as pure functions.",
    long_description=Path("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=find_packages(
        include=[f"{room}{rest}" for room in ROOMS for rest in ("", ".*")],
    ),
    # An editable installation stands on the path as a whole. A finder of its own would be asked
    # after the path, and a folder `models/` without an `__init__.py` beside a script would be found
    # first.
    options={"editable_wheel": {"mode": "compat"}},
    package_data={
        **{room: ["py.typed"] for room in ROOMS if room != "configs"},
        "experiments": ["py.typed", "data/samples/*", "report/page.*"],
        "models": ["py.typed", "embedded/*/*", "huggingface/*.toml"],
    },
    install_requires=[
        "absl-py>=2.0",
        "flax>=0.12",
        "grain>=0.2.18",
        "jax>=0.10",
        "jinja2>=3.1.6",
        "latex2sympy2_extended>=1.11",  # the parser of math-verify
        "matplotlib>=3.9",
        "ml_collections>=1.1",
        "numpy>=2.0",
        "optax>=0.2.8",
        "orbax-checkpoint>=0.12.8",
        "ott-jax>=0.6",
        "rich>=13.0",
        "safetensors>=0.5",
        "scipy>=1.15",
        "sympy>=1.13",
        "transformers>=5.0",
    ],
    extras_require={
        "cuda": ["jax[cuda13]>=0.10"],
        "tpu": ["jax[tpu]>=0.10"],
        "data": ["datasets>=4.0"],  # the hub, folders of files, Parquet
        "test": [
            "datasets>=4.0",
            "hypothesis>=6.100",
            "ipykernel>=6.29",
            "mypy>=1.15",
            "nbclient>=0.10",
            "nbformat>=5.10",
            "pytest>=8.0",
            "pytest-xdist>=3.5",
            "ruff>=0.12",
            *TRACKING,
        ],
        "tracking": TRACKING,
        "parity": ["torch==2.13.0"],
        "peers": ["accelerate>=1.0", "google-tunix==0.1.7", "torch==2.13.0", "trl==1.16.0"],
    },
)
