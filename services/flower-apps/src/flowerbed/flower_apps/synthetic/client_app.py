"""One site: moves the received model, and says how large its weights are. It reads no data."""

from flwr.app import Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from . import task

app = ClientApp()


@app.train()
def train(message: Message, context: Context) -> Message:
    """Move the received model by this site's own step."""
    settings = _settings(message, context)
    arrays = task.train(message.content.array_records["arrays"], settings)
    metrics = MetricRecord({"num-examples": settings.n_examples})
    return Message(RecordDict({"arrays": arrays, "metrics": metrics}), reply_to=message)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """Measure the received model."""
    settings = _settings(message, context)
    measured = task.evaluate(message.content.array_records["arrays"])
    metrics = MetricRecord({"num-examples": settings.n_examples, **measured})
    return Message(RecordDict({"metrics": metrics}), reply_to=message)


def _settings(message: Message, context: Context) -> task.Settings:
    # What the round's message says goes before what the app's defaults say.
    config = {**context.run_config, **message.content.config_records["config"]}
    # Flower's own runtime sends one seed to all; its nodes may have a number each.
    return task.Settings.read(config, int(str(context.node_config.get("partition-id", 0))))
