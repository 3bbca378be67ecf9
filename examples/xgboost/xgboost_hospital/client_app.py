"""xgboost-hospital: A Flower / XGBoost app."""

from pathlib import Path

import numpy as np
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from xgboost_hospital import task

# Flower ClientApp
app = ClientApp()


@app.train()
def train(msg: Message, context: Context):
    """Add trees to the global model."""
    params = task.params_of(context.run_config)
    epochs = context.run_config["local-epochs"]
    data = task.load_data(Path(context.node_config["data-path"]) / "train.jsonl")
    booster = task.train(_model(msg), data, params, epochs)

    # Bagging sends what is new, cyclic all there is
    if context.run_config["train-method"] == "bagging":
        n = booster.num_boosted_rounds()
        booster = booster[n - epochs : n]

    content = np.frombuffer(booster.save_raw("json"), dtype=np.uint8)
    metrics = MetricRecord({"num-examples": data.num_row()})
    record = RecordDict({"arrays": ArrayRecord([content]), "metrics": metrics})
    return Message(content=record, reply_to=msg)


@app.evaluate()
def evaluate(msg: Message, context: Context):
    """Score the global model on the node's test records."""
    data = task.load_data(Path(context.node_config["data-path"]) / "test.jsonl")
    booster = task.load_model(_model(msg), task.params_of(context.run_config))
    loss, accuracy = task.test(booster, data)
    metrics = {"eval_loss": loss, "eval_acc": accuracy, "num-examples": data.num_row()}
    return Message(content=RecordDict({"metrics": MetricRecord(metrics)}), reply_to=msg)


def _model(msg: Message) -> bytes:
    return msg.content["arrays"]["0"].numpy().tobytes()
