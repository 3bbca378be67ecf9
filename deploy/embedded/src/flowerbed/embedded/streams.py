"""JetStream's streams and durables, declared from the topology. On every start; idempotent."""

from importlib.util import find_spec

from flowerbed.embedded.setup import Setup


async def declare_streams(setup: Setup) -> None:
    if find_spec("flowerbed.events.jetstream") is None:
        return
