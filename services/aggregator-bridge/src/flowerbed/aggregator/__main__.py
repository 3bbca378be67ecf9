"""`python -m flowerbed.aggregator`: settings, wiring, run."""

import asyncio
from datetime import timedelta
from functools import partial
from typing import Any

from flowerbed.aggregator.app import routes
from flowerbed.aggregator.app_process import builtin_starter
from flowerbed.aggregator.bridge import Bridge
from flowerbed.aggregator.consumers import consumers
from flowerbed.aggregator.exchanges import AllExchanges
from flowerbed.aggregator.flower_runs import Beats, FlowerRuns
from flowerbed.aggregator.projections.answers import answers
from flowerbed.aggregator.projections.exchanges import TELEMETRY
from flowerbed.aggregator.projections.outcomes import outcomes
from flowerbed.aggregator.screening import Limits
from flowerbed.aggregator.settings import AggregatorSettings
from flowerbed.aggregator.simulations import Ground, Simulations
from flowerbed.aggregator.transport import BusTransport
from flowerbed.artifact.blobs import Blobs
from flowerbed.contracts.catalogue import owned_events
from flowerbed.contracts.topology import partition
from flowerbed.events.codec import Codec
from flowerbed.events.service import Shell, run


def wire(shell: Shell, settings: AggregatorSettings) -> AllExchanges:
    """Put the service together. No I/O."""
    blobs = Blobs(
        settings.s3_endpoint, settings.s3_access_key, settings.s3_secret_key.get_secret_value()
    )
    start_app = builtin_starter()
    bridge = Bridge(
        database=shell.database,
        store=shell.store(Codec(owned_events("aggregator")), [answers, outcomes]),
        blobs=blobs,
        transport=BusTransport(shell.database, blobs),
        spool=settings.spool_directory,
        start_app=start_app,
        bucket=settings.s3_bucket,
        limits=Limits(max_examples=settings.max_examples, max_norm=settings.max_norm),
        initialize_timeout=timedelta(seconds=settings.initialize_timeout_seconds),
        runs_pushed_apps=settings.runs_pushed_apps,
        has_superlink=settings.superlink_address is not None,
        runs_simulations=settings.runs_simulations,
        screening=asyncio.Semaphore(settings.n_screenings),
        has_heard_all=partial(_has_heard_all, shell),
    )
    exchanges = AllExchanges.of(bridge)
    simulations = Simulations(shell.database, ground(settings))
    if settings.lease_url and settings.runs_simulations:
        shell.in_partitions("simulations", simulations.run)
    for consumer in consumers(exchanges, simulations.wake):
        shell.consume(consumer)
    shell.route_traces(TELEMETRY)
    shell.background("app processes", start_app.keep)
    shell.in_partitions("exchanges", exchanges.run)
    shell.readiness("s3", lambda: asyncio.to_thread(blobs.ping, settings.s3_bucket))
    shell.status(lambda: _status(exchanges))
    beats = Beats()
    shell.app.include_router(routes(bridge, settings.internal_token, beats))
    if settings.superlink_address is not None and settings.superlink_ca_file is not None:
        from flowerbed.aggregator.superlink import SuperLink

        runs = FlowerRuns(
            bridge=bridge,
            superlink=SuperLink(settings.superlink_address, settings.superlink_ca_file),
            lease_url=settings.lease_url,
            token=settings.internal_token,
            beats=beats,
        )
        shell.in_partitions("flower runs", runs.run)
        shell.background("flower runs", runs.sweep, leader=True)
    return exchanges


def ground(settings: AggregatorSettings) -> Ground:
    return Ground(
        lease_urls=settings.lease_url,
        internal_token=settings.internal_token,
        s3_endpoint=settings.s3_endpoint,
        s3_access_key=settings.s3_access_key,
        s3_secret_key=settings.s3_secret_key,
        bucket=settings.s3_bucket,
        spool=settings.spool_directory.absolute(),
        runs_pushed_apps=settings.runs_pushed_apps,
    )


async def _has_heard_all(shell: Shell, federation_id: str) -> bool:
    number = partition(federation_id)
    lags = [await shell.consumer_lag(name, number) for name in shell.consumers]
    return not any(lags)


async def _status(exchanges: AllExchanges) -> dict[str, Any]:
    return {"open_exchanges": exchanges.streams}


def main() -> None:
    settings = AggregatorSettings()

    async def build(shell: Shell) -> None:
        wire(shell, settings)

    run(settings, build)


if __name__ == "__main__":
    main()
