"""`python -m flowerbed.artifact`: settings, wiring, run."""

import asyncio
from typing import Any

from flowerbed.artifact.app import routes
from flowerbed.artifact.app_routes import app_routes
from flowerbed.artifact.app_shelf import AppShelf
from flowerbed.artifact.blobs import Blobs
from flowerbed.artifact.consumers import consumers
from flowerbed.artifact.projections import federations, verifications
from flowerbed.artifact.projections.artifacts import artifacts
from flowerbed.artifact.projections.channels import channels
from flowerbed.artifact.settings import ArtifactSettings
from flowerbed.artifact.verifier import Verifier
from flowerbed.contracts.catalogue import owned_events
from flowerbed.events.codec import Codec
from flowerbed.events.service import Shell, run


def wire(shell: Shell, settings: ArtifactSettings) -> Verifier:
    """Put the service together. No I/O."""
    blobs = Blobs(
        settings.s3_endpoint, settings.s3_access_key, settings.s3_secret_key.get_secret_value()
    )
    verifier = Verifier(
        database=shell.database,
        store=shell.store(Codec(owned_events("artifact")), [artifacts, channels]),
        blobs=blobs,
        missing_attempts=settings.missing_attempts,
    )
    for consumer in consumers(verifier):
        shell.consume(consumer)
    shell.route_traces(federations.TELEMETRY)
    shell.in_partitions("verifier", verifier.run)
    shell.readiness("s3", lambda: asyncio.to_thread(blobs.ping, settings.s3_bucket))
    shell.status(lambda: _status(verifier))
    shell.app.include_router(routes(verifier, settings.internal_token))
    shelf = AppShelf(
        database=verifier.database, store=verifier.store, blobs=blobs, bucket=settings.s3_bucket
    )
    shell.app.include_router(app_routes(shelf, settings.internal_token))
    return verifier


async def _status(verifier: Verifier) -> dict[str, Any]:
    return {"refused_artifacts": await verifications.refused(verifier.database)}


def main() -> None:
    settings = ArtifactSettings()

    async def build(shell: Shell) -> None:
        wire(shell, settings)

    run(settings, build)


if __name__ == "__main__":
    main()
