"""One site: trains on its own images, evaluates on images it never trained on."""

from pathlib import Path

from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from . import checkpoint, scaffold, task

app = ClientApp()


@app.train()
def train(message: Message, context: Context) -> Message:
    """Fit the received model to this site's training images."""
    net = task.load_net(message.content.array_records["arrays"])
    images = task.load_images(_data(context) / "train.npz")
    # What the round's message says goes before what the app's defaults say.
    config = {**context.run_config, **message.content.config_records["config"]}
    kept_in = checkpoint.folder_in(context.node_config)
    settings, control = task.Settings.read(config), None
    if scaffold.RECORD in message.content.array_records:
        server = message.content.array_records[scaffold.RECORD]
        control = scaffold.Control(server, context.state)
    loss = task.train(net, images, settings, kept_in, control)
    metrics = MetricRecord({"num-examples": len(images), "train-loss": loss})
    if config.get("label-entropy"):
        metrics["label-entropy"] = task.label_entropy(images)
    content = RecordDict({"arrays": ArrayRecord(net.state_dict()), "metrics": metrics})
    if control is not None:
        base, n_steps = message.content.array_records["arrays"], settings.n_steps(len(images))
        changed = control.finish(base, net, n_steps, settings.learning_rate, context.state)
        content[scaffold.RECORD] = changed
    return Message(content, reply_to=message)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """Score the received model on this site's held-out images."""
    net = task.load_net(message.content.array_records["arrays"])
    images = task.load_images(_data(context) / "test.npz")
    metrics = MetricRecord({"num-examples": len(images), **task.evaluate(net, images)})
    return Message(RecordDict({"metrics": metrics}), reply_to=message)


def _data(context: Context) -> Path:
    return Path(str(context.node_config["data-path"]))
