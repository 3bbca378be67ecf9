"""Without servers: what the workers' keeper does when it is told of an exchange."""

from pathlib import Path
from typing import Any

from flowerbed.aggregator.exchanges import AllExchanges


def test_waking_and_dropping_what_has_no_worker_is_harmless(tmp_path: Path) -> None:
    bridge: Any = object()
    exchanges = AllExchanges.of(bridge)
    exchanges.wake("fed-x", "exchange-x")
    exchanges.drop("fed-x")
    assert exchanges.streams == []
