"""queries: what a node sums up of its data."""

import numpy as np
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from sklearn.datasets import load_diabetes

app = ClientApp()


def load(context: Context):
    features, target = load_diabetes(return_X_y=True)
    part, n_parts = context.node_config["partition-id"], context.node_config["num-partitions"]
    features, target = features[part::n_parts], target[part::n_parts]
    return np.column_stack([np.ones(len(target)), features]), target


@app.query()
def histogram(msg: Message, context: Context) -> Message:
    _, target = load(context)
    counts, _ = np.histogram(target, bins=context.run_config["bins"], range=(0, 350))
    metrics = MetricRecord({"counts": counts.tolist(), "n": len(target)})
    return Message(RecordDict({"histogram": metrics}), reply_to=msg)


@app.query("below")
def below(msg: Message, context: Context) -> Message:
    _, target = load(context)
    counts = {"below": int((target < msg.content["asked"]["x"]).sum()), "n": len(target)}
    return Message(RecordDict({"counts": MetricRecord(counts)}), reply_to=msg)


@app.query("sums")
def sums(msg: Message, context: Context) -> Message:
    features, target = load(context)
    arrays = ArrayRecord([features.T @ features, features.T @ target])
    return Message(RecordDict({"sums": arrays}), reply_to=msg)


@app.evaluate()
def evaluate(msg: Message, context: Context) -> Message:
    features, target = load(context)
    (weights,) = msg.content["weights"].to_numpy_ndarrays()
    squared = float(((features @ weights - target) ** 2).sum())
    metrics = MetricRecord({"squared": squared, "n": len(target)})
    return Message(RecordDict({"metrics": metrics}), reply_to=msg)
