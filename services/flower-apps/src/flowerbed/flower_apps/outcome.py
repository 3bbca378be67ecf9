"""What a ServerApp ends with: the arrays and metrics that its strategy gave, seen from outside."""

import functools
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from flwr.app import ArrayRecord, Message, MetricRecord
from flwr.common import parameters_to_ndarrays
from flwr.server.server import Server
from flwr.serverapp.strategy import Result, Strategy

Source = Literal["result", "last-sent", "none"]


@dataclass(slots=True)
class Outcome:
    """Told of what goes on; the last word counts."""

    arrays: ArrayRecord | None = None
    is_result: bool = False
    training: dict[str, float] = field(default_factory=dict)
    evaluation: dict[str, float] = field(default_factory=dict)
    central: dict[str, float] = field(default_factory=dict)

    @property
    def source(self) -> Source:
        if self.arrays is None:
            return "none"
        return "result" if self.is_result else "last-sent"

    def sent(self, message: Message) -> None:
        """The last arrays that were sent, until a strategy gives its own."""
        records = list(message.content.array_records.values())
        if not self.is_result and len(records) == 1 and records[0]:
            self.arrays = records[0]

    def ended(self, result: Result) -> None:
        if not result.arrays:
            return
        self.arrays, self.is_result = result.arrays, True
        self.training = _last(result.train_metrics_clientapp)
        self.evaluation = _last(result.evaluate_metrics_clientapp)
        self.central = _last(result.evaluate_metrics_serverapp)

    def ended_before_records(self, server: Server) -> None:
        """Of a ServerApp of Flower's older kind."""
        arrays = parameters_to_ndarrays(server.parameters)
        if arrays:
            self.arrays, self.is_result = ArrayRecord(arrays), True


def watch(outcome: Outcome) -> None:
    """Have every strategy of this process tell how it ends, also one with a `start` of its own."""
    _wrap(Strategy, "start", lambda _, result: outcome.ended(result))
    _wrap(Server, "fit", lambda server, _: outcome.ended_before_records(server))

    def of_subclass(cls: type[Strategy], /, **options: Any) -> None:
        super(Strategy, cls).__init_subclass__(**options)
        if "start" in vars(cls):
            _wrap(cls, "start", lambda _, result: outcome.ended(result))

    Strategy.__init_subclass__ = classmethod(of_subclass)  # type: ignore[assignment]


def _wrap(cls: type[Any], name: str, tell: Callable[[Any, Any], None]) -> None:
    method = getattr(cls, name)

    @functools.wraps(method)
    def told(self: Any, *arguments: Any, **options: Any) -> Any:
        result = method(self, *arguments, **options)
        if not isinstance(result, Result) and cls is not Server:
            return result  # a `start` of the app's own gives what it likes
        tell(self, result)
        return result

    setattr(cls, name, told)


def _last(rounds: Mapping[int, MetricRecord]) -> dict[str, float]:
    """The finite numbers of the last round."""
    if not rounds:
        return {}
    found = rounds[max(rounds)]
    return {
        name: float(value)
        for name, value in found.items()
        if isinstance(value, int | float) and abs(value) <= sys.float_info.max
    }
