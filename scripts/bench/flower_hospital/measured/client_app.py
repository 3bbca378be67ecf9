"""The hospital's own train and evaluate, and a mod that tells how long each call took.

A node is told its `partition-id`, by its own configuration or by the simulation; the run's
configuration lists the sites' folders in that order.
"""

import time

from flwr.app import Context, Message
from flwr.clientapp import ClientApp
from flwr.clientapp.typing import ClientAppCallable

from flowerbed.flower_apps.hospital.client_app import evaluate, train

from .telling import tell


def timed(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
    place = int(context.node_config["partition-id"])
    context.node_config["data-path"] = str(context.run_config["sites"]).split(":")[place]
    began = time.perf_counter()
    reply = call_next(message, context)
    seconds = time.perf_counter() - began
    tell(
        context.run_config["log"],
        what=message.metadata.message_type,
        round=message.content.config_records["config"]["server-round"],
        place=place,
        seconds=seconds,
    )
    return reply


app = ClientApp(mods=[timed])
app.train()(train)
app.evaluate()(evaluate)
