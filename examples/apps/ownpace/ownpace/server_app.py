"""ownpace: each node is sent its next step as soon as it has answered; nobody waits for a round."""

import time

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.serverapp import Grid, ServerApp

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    nodes = list(grid.get_node_ids())
    models = {node: np.zeros((14, 3)) for node in nodes}
    steps_left = dict.fromkeys(nodes, context.run_config["num-server-rounds"])
    weights = dict.fromkeys(nodes, 0)
    waiting: dict[str, int] = {}

    def ask(node: int) -> None:
        content = RecordDict({"model": ArrayRecord([models[node]])})
        (message_id,) = grid.push_messages([Message(content, node, "train.step")])
        waiting[message_id] = node

    for node in nodes:
        ask(node)
    while waiting:
        for reply in grid.pull_messages(set(waiting)):
            node = waiting.pop(reply.metadata.reply_to_message_id)
            if reply.has_error():
                print("node", node, "is left out:", reply.error.reason)
                continue
            (models[node],) = reply.content["model"].to_numpy_ndarrays()
            weights[node] = reply.content["data"]["n"]
            steps_left[node] -= 1
            if steps_left[node]:
                ask(node)
        time.sleep(0.1)

    model = np.average([models[n] for n in nodes], axis=0, weights=[weights[n] for n in nodes])
    content = RecordDict({"model": ArrayRecord([model])})
    replies = grid.send_and_receive([Message(content, node, "evaluate") for node in nodes])
    metrics = [reply.content["metrics"] for reply in replies if reply.has_content()]
    accuracy = sum(m["n-right"] for m in metrics) / sum(m["n"] for m in metrics)
    print("right in", accuracy)

    # Told to the nodes; what they say to it nobody waits for
    told = RecordDict({"told": ConfigRecord({"accuracy": accuracy})})
    grid.push_messages([Message(told, node, "query.note") for node in nodes])
