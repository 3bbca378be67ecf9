"""The gateway: settings, wiring, run."""

from functools import partial

from flowerbed.events.service import run
from flowerbed.gateway.app import build
from flowerbed.gateway.settings import GatewaySettings


def main() -> None:
    settings = GatewaySettings.load()
    run(settings, partial(build, settings))


if __name__ == "__main__":
    main()
