"""ownloop: A Flower / PyTorch app."""

from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from ownloop.task import Net, load_data, test, train

app = ClientApp()


@app.train()
def train_fn(msg: Message, context: Context) -> Message:
    node, config = context.node_config, msg.content["config"]
    net = Net()
    net.load_state_dict(msg.content["model"].to_torch_state_dict())
    loader, _ = load_data(node["partition-id"], node["num-partitions"])
    loss = train(net, loader, context.run_config["local-epochs"], config["lr"])
    metrics = MetricRecord({"loss": loss, "num-examples": len(loader.dataset)})
    content = RecordDict({"model": ArrayRecord(net.state_dict()), "metrics": metrics})
    return Message(content, reply_to=msg)


@app.evaluate()
def evaluate_fn(msg: Message, context: Context) -> Message:
    node = context.node_config
    net = Net()
    net.load_state_dict(msg.content["model"].to_torch_state_dict())
    _, loader = load_data(node["partition-id"], node["num-partitions"])
    loss, accuracy = test(net, loader)
    counted = {"loss": loss, "accuracy": accuracy, "num-examples": len(loader.dataset)}
    return Message(RecordDict({"metrics": MetricRecord(counted)}), reply_to=msg)
