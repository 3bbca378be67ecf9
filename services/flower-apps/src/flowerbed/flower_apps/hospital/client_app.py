"""One hospital: trains on its own records, evaluates on records it never trained on."""

from pathlib import Path

from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from . import checkpoint, scaffold, task

app = ClientApp()


@app.train()
def train(message: Message, context: Context) -> Message:
    """Fit the received model to this site's training records."""
    net = task.load_net(message.content.array_records["arrays"])
    rows = task.load_rows(_data(context) / "train.jsonl")
    # What the round's message says goes before what the app's defaults say.
    config = {**context.run_config, **message.content.config_records["config"]}
    kept_in = checkpoint.folder_in(context.node_config)
    settings, control = task.Settings.read(config), None
    if scaffold.RECORD in message.content.array_records:
        server = message.content.array_records[scaffold.RECORD]
        control = scaffold.Control(server, context.state)
    loss = task.train(net, rows, settings, kept_in, control)
    metrics = MetricRecord({"num-examples": len(rows), "train-loss": loss})
    if config.get("label-entropy"):
        metrics["label-entropy"] = task.label_entropy(rows)
    content = RecordDict({"arrays": ArrayRecord(net.state_dict()), "metrics": metrics})
    if control is not None:
        base, n_steps = message.content.array_records["arrays"], settings.n_steps(len(rows))
        changed = control.finish(base, net, n_steps, settings.learning_rate, context.state)
        content[scaffold.RECORD] = changed
    return Message(content, reply_to=message)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """Score the received model on this site's held-out records."""
    net = task.load_net(message.content.array_records["arrays"])
    rows = task.load_rows(_data(context) / "test.jsonl")
    metrics = MetricRecord({"num-examples": len(rows), **task.evaluate(net, rows)})
    return Message(RecordDict({"metrics": metrics}), reply_to=message)


def _data(context: Context) -> Path:
    return Path(str(context.node_config["data-path"]))
