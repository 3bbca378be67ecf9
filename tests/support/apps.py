"""Bundles of Flower apps, made by hand: small, and wrong in one way where that is wanted."""

import hashlib
import io
import zipfile
from collections.abc import Mapping

PROJECT = """
[project]
name = "drift"
version = "1.2.0"

[tool.flwr.app]
publisher = "alice"

[tool.flwr.app.components]
serverapp = "drift.server_app:app"
clientapp = "drift.client_app:app"

[tool.flwr.app.config]
local-epochs = 1
lr = 0.5
optimizer.name = "sgd"
"""

CLIENT_APP = """
import sys
from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from drift.task import moved

app = ClientApp()


@app.train()
def train(msg, context):
    arrays = msg.content["arrays"].to_numpy_ndarrays()
    print("runs in", sys.prefix)
    metrics = {
        "num-examples": 3,
        "lr": context.run_config["lr"],
        "told": msg.content["config"].get("lr", -1.0),
        "shift": context.node_config.get("shift", 0),
        "first": float(arrays[0].flat[0]),
        "last": float(arrays[-1].flat[0]),
    }
    content = {"arrays": ArrayRecord(moved(arrays)), "metrics": MetricRecord(metrics)}
    return Message(RecordDict(content), reply_to=msg)


@app.evaluate()
def evaluate(msg, context):
    metrics = MetricRecord({"num-examples": 2, "eval_loss": 0.25})
    return Message(RecordDict({"metrics": metrics}), reply_to=msg)
"""

TASK = """
import numpy as np


class Net:
    def state_dict(self):
        return {"weights": np.random.rand(4).astype(np.float32)}


def parameters():
    return [np.full(2, place, np.float32) for place in range(12)]


def moved(arrays):
    return [array + 1 for array in arrays]
"""

FILES = {
    "pyproject.toml": PROJECT,
    "drift/__init__.py": "",
    "drift/client_app.py": CLIENT_APP,
    "drift/task.py": TASK,
    "drift/server_app.py": "raise RuntimeError('nobody loads the server')",
}


def bundle(changed: Mapping[str, str] = {}, *, files: Mapping[str, str] = FILES) -> bytes:
    """The zip of an app's files, some of them changed; the same files, the same bytes."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, text in {**files, **changed}.items():
            about = zipfile.ZipInfo(name, (2024, 10, 1, 0, 0, 0))
            archive.writestr(about, text, zipfile.ZIP_DEFLATED)
    return out.getvalue()


def digest(raw: bytes) -> str:
    return hashlib.sha256(raw).hexdigest()
