"""Small models as safetensors files."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

Model = dict[str, NDArray[Any]]


def model(seed: int, *, size: int = 1000) -> Model:
    """A model with two float tensors, one of half precision, and a counter."""
    generator = np.random.default_rng(seed)
    return {
        "layer.weight": generator.standard_normal((size // 10, 10)).astype(np.float32),
        "layer.bias": generator.standard_normal(10).astype(np.float32),
        "norm.scale": generator.standard_normal(7).astype(np.float16),
        "norm.steps": np.array(seed * 3, dtype=np.int64),
    }


def stored(path: Path, tensors: Model) -> Path:
    save_file(tensors, path)
    return path
