"""What a person chose at `client start`, kept for the agent."""

from dataclasses import asdict, dataclass, field

from flowerbed.contracts.values import Scalar
from flowerbed.runner.errors import BadInput
from flowerbed.runner.state import StateDir, read_json, write_json


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentSettings:
    """`dataset`: `local:/path`, absolute. `task`: what its own dataset.json does not say.

    `logs`: the app's log lines are handed out.
    `python`: the interpreter that runs the apps; None is ours.
    `superlink`: the site runs a SuperNode for each lease of a federation over a SuperLink.
    `node_config`: what each app finds in its context besides what it is told anyway.
    `otlp_endpoint`: the collector that spans are sent to; None is what the standard variables say.
    `otlp_allowed`: origins of collectors that a federation may have its spans sent to.
    """

    dataset: str
    task: str | None = None
    logs: bool = True
    python: str | None = None
    superlink: bool = False
    node_config: dict[str, Scalar] = field(default_factory=dict)
    otlp_endpoint: str | None = None
    otlp_protocol: str | None = None
    otlp_allowed: tuple[str, ...] = ()

    def save(self, state: StateDir) -> None:
        write_json(state.settings, asdict(self))

    @classmethod
    def load(cls, state: StateDir) -> "AgentSettings":
        """Raises: BadInput: no agent was ever started there."""
        document = read_json(state.settings)
        if document is None:
            raise BadInput(f"{state.root} has no agent.json: begin with `flowerbed client start`")
        return cls(**{**document, "otlp_allowed": tuple(document.get("otlp_allowed", ()))})
