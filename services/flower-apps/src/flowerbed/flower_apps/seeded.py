"""A ClientApp that is seeded by each message, and timed, in whatever process Flower runs it.

Needs nothing but flwr, so that it can be carried to a machine that has nothing else of ours.
"""

import importlib
import os
import random
import sys
import time
from operator import attrgetter

import numpy as np
from flwr.app import Context, Message, MetricRecord
from flwr.clientapp import ClientApp
from flwr.clientapp.client_app import LoadClientAppError

MEASURES = "flowerbed"
"""The reply's record of what was measured: it is taken out before anybody looks at the metrics."""
SECONDS = "seconds"


class Seeded(ClientApp):
    """The app, for whom every message begins with the seed that its config names.

    So an app that forgets to seed gives the same bytes for the same message, whichever process
    handles it and whatever that has handled before.
    """

    def __init__(self, app: ClientApp) -> None:
        super().__init__()
        self._app = app

    def __call__(self, message: Message, context: Context) -> Message:
        config = message.content.config_records.get("config") if message.has_content() else None
        seed = None if config is None else config.get("seed")
        if (torch := sys.modules.get("torch")) is not None:
            torch.set_num_threads(1)
        if isinstance(seed, int):
            seed_all(seed)
        began = time.perf_counter()
        reply = self._app(message, context)
        if not reply.has_error():
            seconds = time.perf_counter() - began
            reply.content[MEASURES] = MetricRecord({SECONDS: seconds})
        return reply


def load_seeded(reference: str, folder: str | None) -> ClientApp:
    """The app that `module:name` names; of one that lies in a folder, its modules come first.

    On another machine the folder is not there, and the modules are found where they were put.
    """
    if folder is not None and folder not in sys.path and os.path.isdir(folder):
        sys.path.insert(0, folder)
    module, _, attributes = reference.partition(":")
    try:
        app = attrgetter(attributes)(importlib.import_module(module))
    except Exception as error:  # whatever an app's import may raise
        raise LoadClientAppError(f"{type(error).__name__}: {error}") from error
    if not isinstance(app, ClientApp):
        raise LoadClientAppError(f"{reference} is {type(app).__name__}, not a ClientApp")
    return Seeded(app)


def seed_all(seed: int) -> None:
    """Also an app that forgets to seed must give the same bytes for the same order."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    if (torch := sys.modules.get("torch")) is not None:
        torch.manual_seed(seed)


def take_seconds(reply: Message) -> float:
    """How long the app took, where that was measured; the reply is as the app made it after."""
    if MEASURES not in reply.content:
        return 0.0
    record = reply.content.pop(MEASURES)
    seconds = record.get(SECONDS) if isinstance(record, MetricRecord) else None
    return float(seconds) if isinstance(seconds, int | float) and seconds >= 0 else 0.0
