"""The round orchestrator: wiring."""

from datetime import UTC, datetime
from functools import partial

from pydantic_settings import SettingsConfigDict

from flowerbed.contracts.catalogue import EVENTS
from flowerbed.events.codec import Codec
from flowerbed.events.service import Shell, run
from flowerbed.events.settings import ServiceSettings
from flowerbed.orchestrator.app import internal_routes
from flowerbed.orchestrator.commanding import Federations
from flowerbed.orchestrator.consumers import consumers
from flowerbed.orchestrator.projections.deadlines import deadlines
from flowerbed.orchestrator.submissions import Submissions
from flowerbed.orchestrator.sweeper import sweep

now = partial(datetime.now, UTC)


class OrchestratorSettings(ServiceSettings):
    model_config = SettingsConfigDict(env_prefix="FLOWERBED_ORCHESTRATOR_")


async def build(shell: Shell) -> None:
    codec = Codec(EVENTS)
    federations = Federations(shell.store(codec, projections=[deadlines]), now)
    for consumer in consumers(federations, codec):
        shell.consume(consumer)
    submissions = Submissions(shell.settings, shell.database, federations)
    shell.background("submissions", partial(submissions.run, shell.stopping))
    shell.background("deadlines", partial(sweep, shell.database, federations, now), leader=True)
    shell.route_traces()
    shell.app.include_router(
        internal_routes(shell.settings.internal_token, shell.database, federations)
    )


def main() -> None:
    run(OrchestratorSettings.load(), build)


if __name__ == "__main__":
    main()
