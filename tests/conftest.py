"""Fixtures that every test may ask for; the servers start when the first one asks."""

from hypothesis import HealthCheck, settings

from tests.support.servers import (
    bus,
    fresh_streams,
    nats_server,
    postgres_server,
    proxy,
    service_database,
    service_settings,
)

__all__ = [
    "bus",
    "fresh_streams",
    "nats_server",
    "postgres_server",
    "proxy",
    "service_database",
    "service_settings",
]

# The machine decides how long an example takes, so time is no reason to fail.
settings.register_profile("flowerbed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("flowerbed")
