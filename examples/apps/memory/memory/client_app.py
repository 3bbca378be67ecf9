"""memory: the body is everybody's, the head stays at the node, in `context.state`."""

from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from memory.task import Net, load_data, test, train

app = ClientApp()


def prepared(msg: Message, context: Context):
    net = Net()
    net.body.load_state_dict(msg.content["arrays"].to_torch_state_dict())
    if "head" in context.state.array_records:
        net.head.load_state_dict(context.state["head"].to_torch_state_dict())
    node = context.node_config
    return net, load_data(node["partition-id"], node["num-partitions"])


@app.train()
def train_fn(msg: Message, context: Context) -> Message:
    net, (loader, _) = prepared(msg, context)
    loss = train(net, loader, context.run_config["local-epochs"], context.run_config["lr"])
    context.state["head"] = ArrayRecord(net.head.state_dict())
    seen = context.state.metric_records.setdefault("seen", MetricRecord({"rounds": 0}))
    seen["rounds"] += 1
    metrics = {"loss": loss, "rounds": seen["rounds"], "num-examples": len(loader.dataset)}
    content = {"arrays": ArrayRecord(net.body.state_dict()), "metrics": MetricRecord(metrics)}
    return Message(RecordDict(content), reply_to=msg)


@app.evaluate()
def evaluate_fn(msg: Message, context: Context) -> Message:
    net, (_, loader) = prepared(msg, context)
    loss, accuracy = test(net, loader)
    metrics = {"loss": loss, "accuracy": accuracy, "num-examples": len(loader.dataset)}
    return Message(RecordDict({"metrics": MetricRecord(metrics)}), reply_to=msg)
