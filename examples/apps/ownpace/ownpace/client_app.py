"""ownpace: softmax regression on what a node has of the wines."""

import numpy as np
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from sklearn.datasets import load_wine

app = ClientApp()


def load(context: Context):
    features, target = load_wine(return_X_y=True)
    features = (features - features.mean(axis=0)) / features.std(axis=0)
    part, n_parts = context.node_config["partition-id"], context.node_config["num-partitions"]
    features, target = features[part::n_parts], target[part::n_parts]
    return np.column_stack([np.ones(len(target)), features]), target


def softmax(logits: np.ndarray) -> np.ndarray:
    exponents = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exponents / exponents.sum(axis=1, keepdims=True)


@app.train("step")
def step(msg: Message, context: Context) -> Message:
    features, target = load(context)
    (weights,) = msg.content["model"].to_numpy_ndarrays()
    for _ in range(20):
        error = softmax(features @ weights) - np.eye(3)[target]
        weights = weights - context.run_config["learning-rate"] * features.T @ error / len(target)
    content = {"model": ArrayRecord([weights]), "data": MetricRecord({"n": len(target)})}
    return Message(RecordDict(content), reply_to=msg)


@app.evaluate()
def evaluate(msg: Message, context: Context) -> Message:
    features, target = load(context)
    (weights,) = msg.content["model"].to_numpy_ndarrays()
    n_right = int(((features @ weights).argmax(axis=1) == target).sum())
    metrics = MetricRecord({"n-right": n_right, "n": len(target)})
    return Message(RecordDict({"metrics": metrics}), reply_to=msg)


@app.query("note")
def note(msg: Message, context: Context) -> Message:
    print("the model of all nodes is right in", msg.content["told"]["accuracy"])
    return Message(RecordDict(), reply_to=msg)
