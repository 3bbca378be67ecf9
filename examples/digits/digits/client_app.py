"""digits: one node."""

from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from digits.task import Net, load_data
from digits.task import test as test_fn
from digits.task import train as train_fn

app = ClientApp()


@app.train()
def train(msg: Message, context: Context):
    """Train the received model on this node's images."""
    net, config, trainloader, _ = prepared(msg, context)
    loss = train_fn(net, trainloader, int(config["local-epochs"]), float(config["learning-rate"]))
    metrics = MetricRecord({"num-examples": len(trainloader.dataset), "train_loss": loss})
    content = RecordDict({"arrays": ArrayRecord(net.state_dict()), "metrics": metrics})
    return Message(content=content, reply_to=msg)


@app.evaluate()
def evaluate(msg: Message, context: Context):
    """Score the received model on images that no node trains on."""
    net, _, _, testloader = prepared(msg, context)
    loss, accuracy = test_fn(net, testloader)
    metrics = {"num-examples": len(testloader.dataset), "eval_loss": loss, "eval_acc": accuracy}
    return Message(content=RecordDict({"metrics": MetricRecord(metrics)}), reply_to=msg)


def prepared(msg: Message, context: Context):
    net = Net()
    net.load_state_dict(msg.content["arrays"].to_torch_state_dict())
    config = {**context.run_config, **msg.content["config"]}
    partition, batch = int(context.node_config["partition-id"]), int(config.get("batch-size", 16))
    return net, config, *load_data(partition, batch)
