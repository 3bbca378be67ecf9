"""ownloop: no strategy at all, a loop over the Grid."""

import random
import time
from logging import INFO

import torch
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MessageType, RecordDict
from flwr.common.logger import log
from flwr.serverapp import Grid, ServerApp

from ownloop.task import Net

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    num_rounds = context.run_config["num-server-rounds"]
    model = Net()
    for server_round in range(1, num_rounds + 1):
        log(INFO, "round %s of %s", server_round, num_rounds)

        # Loop and wait until enough nodes are available
        all_node_ids = list(grid.get_node_ids())
        while len(all_node_ids) < 2:
            time.sleep(1)
            all_node_ids = list(grid.get_node_ids())
        n_chosen = max(2, round(context.run_config["fraction-train"] * len(all_node_ids)))
        chosen = random.sample(all_node_ids, n_chosen)

        # Train on some, with messages of our own
        recorddict = RecordDict(
            {
                "model": ArrayRecord(model.state_dict()),
                "config": ConfigRecord({"lr": context.run_config["lr"] / server_round}),
            }
        )
        messages = [
            Message(
                recorddict,
                dst_node_id=node,
                message_type=MessageType.TRAIN,
                group_id=str(server_round),
            )
            for node in chosen
        ]
        replies = list(grid.send_and_receive(messages))
        log(INFO, "received %s of %s", len(replies), len(messages))
        model.load_state_dict(mean_of(replies))

        # Evaluate on all, and ask for the replies as they come
        content = RecordDict({"model": ArrayRecord(model.state_dict())})
        messages = [Message(content, node, MessageType.EVALUATE) for node in all_node_ids]
        waiting, accuracies, end = set(grid.push_messages(messages)), [], time.time() + 120
        while waiting and time.time() < end:
            for reply in grid.pull_messages(list(waiting)):
                waiting.discard(reply.metadata.reply_to_message_id)
                accuracies.append(reply.content["metrics"]["accuracy"])
            time.sleep(0.1)
        log(INFO, "accuracy %.3f", sum(accuracies) / len(accuracies))

    torch.save(model.state_dict(), "final_model.pt")
    grid.send_and_receive(
        [
            Message(RecordDict({"model": ArrayRecord(model.state_dict())}), node, "evaluate")
            for node in all_node_ids
        ]
    )


def mean_of(replies):
    """The mean of what came without an error, weighted by examples."""
    good = [reply.content for reply in replies if not reply.has_error()]
    weights = [content["metrics"]["num-examples"] for content in good]
    states = [content["model"].to_torch_state_dict() for content in good]
    return {
        name: sum(w * state[name] for w, state in zip(weights, states, strict=True)) / sum(weights)
        for name in states[0]
    }
