"""Between event objects and stored JSON; old payloads are upcast on the way in."""

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeAlias

from flowerbed.contracts.event import Event
from flowerbed.events.errors import UnknownEvent

Upcaster: TypeAlias = Callable[[dict[str, Any]], dict[str, Any]]
"""Turns a payload of version n into version n + 1. Pure."""

Upcasters: TypeAlias = Mapping[tuple[str, int], Upcaster]
"""By event type and the version that the upcaster reads."""


class Codec:
    def __init__(self, classes: Iterable[type[Event]], upcasters: Upcasters | None = None) -> None:
        self._classes = {cls.type: cls for cls in classes}
        self._upcasters = dict(upcasters or {})

    @property
    def types(self) -> frozenset[str]:
        return frozenset(self._classes)

    def encode(self, event: Event) -> tuple[str, int, bytes]:
        """The event's type, its schema version, and its payload as JSON."""
        if self._classes.get(event.type) is not type(event):
            raise UnknownEvent(f"event type {event.type!r} is not known here")
        return event.type, event.schema_version, event.model_dump_json().encode()

    def decode(self, event_type: str, schema_version: int, data: bytes | str) -> Event:
        cls = self._classes.get(event_type)
        if cls is None:
            raise UnknownEvent(f"event type {event_type!r} is not known here")
        if schema_version == cls.schema_version:
            return cls.model_validate_json(data)
        return cls.model_validate_json(self._upcast(cls, schema_version, data))

    def _upcast(self, cls: type[Event], schema_version: int, data: bytes | str) -> str:
        if schema_version > cls.schema_version:
            raise UnknownEvent(
                f"{cls.type} has schema version {schema_version}, newest known here is"
                f" {cls.schema_version}"
            )
        payload: dict[str, Any] = json.loads(data)
        for version in range(schema_version, cls.schema_version):
            upcaster = self._upcasters.get((cls.type, version))
            if upcaster is None:
                raise UnknownEvent(f"no upcaster for {cls.type} from schema version {version}")
            payload = upcaster(payload)
        return json.dumps(payload)
