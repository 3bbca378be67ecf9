"""xgboost-hospital: the model, the data, and how one node trains and tests."""

import json
from pathlib import Path

import numpy as np
import xgboost as xgb


def empty():
    """No tree yet: the first round's clients begin from nothing."""
    return [np.empty(0, np.uint8)]


def load_data(path: Path) -> xgb.DMatrix:
    """What nobody measured is missing, which XGBoost knows."""
    rows = [json.loads(line) for line in path.read_text().splitlines() if line]
    features = np.array([row["features"] for row in rows], dtype=np.float32)
    return xgb.DMatrix(features, label=[row["label"] for row in rows])


def params_of(run_config) -> dict:
    """The keys below `params`, as XGBoost spells them."""
    return {
        key.removeprefix("params.").replace("-", "_"): value
        for key, value in run_config.items()
        if key.startswith("params.")
    }


def load_model(content: bytes, params: dict) -> xgb.Booster:
    booster = xgb.Booster(params=params)
    booster.load_model(bytearray(content))
    return booster


def train(content: bytes, data: xgb.DMatrix, params: dict, epochs: int) -> xgb.Booster:
    """The model with a tree more an epoch."""
    if not content:
        return xgb.train(params, data, num_boost_round=epochs)
    booster = load_model(content, params)
    for _ in range(epochs):
        booster.update(data, booster.num_boosted_rounds())
    return booster


def test(booster: xgb.Booster, data: xgb.DMatrix) -> tuple[float, float]:
    """Log loss and accuracy."""
    labels, found = data.get_label(), booster.predict(data).clip(1e-7, 1 - 1e-7)
    loss = -np.mean(labels * np.log(found) + (1 - labels) * np.log(1 - found))
    return float(loss), float(np.mean((found > 0.5) == (labels > 0.5)))
