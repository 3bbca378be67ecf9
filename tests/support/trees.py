"""Clients that train trees on data of their own, as Flower's example of XGBoost does."""

from typing import Any

import numpy as np
import xgboost as xgb

PARAMS = {"objective": "binary:logistic", "max_depth": 3, "eta": 0.3, "nthread": 1}
WIDTH = 5


def data(seed: int, width: int = WIDTH) -> Any:
    features = np.random.default_rng(seed).normal(size=(80, width))
    labels = features[:, 0] + features[:, 1] * features[:, 2] > 0
    return xgb.DMatrix(features, labels.astype(float))


def trained(base: bytes, seed: int, rounds: int = 1, **params: Any) -> bytes:
    """What a client sends: the trees that it adds to the base."""
    params = PARAMS | params
    if not base:
        return bytes(xgb.train(params, data(seed), rounds).save_raw("json"))
    booster = xgb.Booster(params=params)
    booster.load_model(bytearray(base))
    n = booster.num_boosted_rounds()
    for place in range(rounds):
        booster.update(data(seed), n + place)
    return bytes(booster[n:].save_raw("json"))
