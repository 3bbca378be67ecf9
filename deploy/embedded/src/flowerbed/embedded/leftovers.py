"""Ending the processes of a stack whose supervisor is gone: only those that it wrote down."""

import logging
import signal

from flowerbed.embedded.identity import ProcessId, stop_all
from flowerbed.embedded.record import ComponentRecord, StackRecord
from flowerbed.embedded.shape import base_of

logger = logging.getLogger(__name__)

STOP_ORDER = (
    frozenset({"prometheus", "alertmanager", "superexec"}),
    frozenset({"caddy"}),
    frozenset({"s3", "nats", "superlink"}),
    frozenset({"postgres"}),
)
"""After the services, which need all of them."""


def stop_groups(components: tuple[ComponentRecord, ...]) -> list[list[ComponentRecord]]:
    """Services first, then who watches them, then the doors, then the stores."""
    groups = [[item for item in components if item.kind == "service"]]
    groups += [[item for item in components if base_of(item.name) in names] for names in STOP_ORDER]
    return [group for group in groups if group]


def end_leftovers(record: StackRecord) -> list[str]:
    """Names of what still ran. A pid that another process has by now is left alone."""
    ended = []
    for group in stop_groups(record.components):
        alive: list[tuple[ComponentRecord, ProcessId]] = [
            (item, item.process)
            for item in group
            if item.process is not None and item.process.is_alive()
        ]
        ended += [item.name for item, _ in alive]
        for item, process in alive:
            process.signal(signal.Signals[item.stop_signal])
        stop_all(
            [process for _, process in alive],
            max((item.stop_seconds for item, _ in alive), default=0),
        )
    if ended:
        logger.warning("ended what an earlier stack left: %s", ", ".join(ended))
    return ended
