"""plainstart: A Flower / Scikit-Learn app."""

from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from sklearn.metrics import log_loss

from plainstart.task import create_model, fit, get_parameters, load_data, set_parameters

app = ClientApp()


def prepared(msg: Message, context: Context):
    config = context.run_config
    model = create_model(config["penalty"], config["local-epochs"])
    set_parameters(model, msg.content["arrays"].to_numpy_ndarrays())
    node = context.node_config
    return model, load_data(node["partition-id"], node["num-partitions"])


@app.train()
def train(msg: Message, context: Context) -> Message:
    model, (features, _, labels, _) = prepared(msg, context)
    fit(model, features, labels)
    metrics = {
        "num-examples": len(labels),
        "train-loss": log_loss(labels, model.predict_proba(features)),
    }
    content = RecordDict(
        {"arrays": ArrayRecord(get_parameters(model)), "metrics": MetricRecord(metrics)}
    )
    return Message(content=content, reply_to=msg)


@app.evaluate()
def evaluate(msg: Message, context: Context) -> Message:
    model, (_, features, _, labels) = prepared(msg, context)
    metrics = {
        "num-examples": len(labels),
        "eval-loss": log_loss(labels, model.predict_proba(features), labels=[0, 1]),
        "eval-acc": model.score(features, labels),
    }
    return Message(content=RecordDict({"metrics": MetricRecord(metrics)}), reply_to=msg)
