"""What a ServerApp's process and the aggregator say to each other: JSON, a document a line.

The app's process asks, the aggregator answers by `call`. Contents lie in files, named by their
sha256: what is sent in `outbox`, what comes back in `inbox`.
"""

from typing import Annotated, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

Scalar: TypeAlias = bool | int | float | str

EMPTY_PULL_SECONDS = 0.2
"""What a fruitless pull takes: of real time at the least, of the app's clock just that."""
HINT = (
    "main must do the same when it is run again: what differs may come from randomness that is not"
    " seeded, from the clock, from threads, or from files and services that changed"
)


class _Line(BaseModel):
    model_config = ConfigDict(frozen=True, ser_json_inf_nan="constants")

    def line(self) -> bytes:
        return self.model_dump_json().encode() + b"\n"


class Hello(_Line):
    """Not in the arguments, which anyone can list.

    `started_at`: what the app's clock shows first. `is_replayed`: there are facts to answer from.
    """

    folder: str
    server_app: str
    run_config: dict[str, Scalar]
    run_id: int
    node_ids: tuple[int, ...]
    seed: int
    started_at: float
    is_replayed: bool
    inbox: str
    outbox: str
    work: str


# --- the app asks -----------------------------------------------------------


class Sent(_Line):
    """One message. `config`: what it says of passes over the data."""

    node_id: int
    message_type: str
    group_id: str
    ttl: float
    sha256: str
    size: int
    config: dict[str, Scalar] = {}


class Asked(_Line):
    """`at`: what the app's clock shows. `n_empty`: fruitless pulls since the last answer."""

    call: int
    at: float
    n_empty: int = 0
    is_main: bool = True


class Push(Asked):
    kind: Literal["push"] = "push"
    messages: tuple[Sent, ...]
    timeout: float | None = None


class Pull(Asked):
    """`waits`: for all of them, at most for `timeout`; otherwise what there is."""

    kind: Literal["pull"] = "pull"
    ids: tuple[str, ...]
    waits: bool
    timeout: float | None = None


class Done(_Line):
    """`main` returned. The arrays are a safetensors file in `outbox`."""

    kind: Literal["done"] = "done"
    arrays_from: Literal["result", "last-sent", "none"]
    sha256: str
    size: int
    training: dict[str, float] = {}
    evaluation: dict[str, float] = {}
    central: dict[str, float] = {}


class Failed(_Line):
    """The app could not be loaded, raised, or did something else than in its first run."""

    kind: Literal["failed"] = "failed"
    code: Literal["app-failed", "not-deterministic"]
    reason: str


Call: TypeAlias = Annotated[Push | Pull | Done | Failed, Field(discriminator="kind")]
CALLS: TypeAdapter[Push | Pull | Done | Failed] = TypeAdapter(Call)

# --- the aggregator answers ---------------------------------------------------


class Reply(_Line):
    """A node's content as a file, or one of Flower's errors."""

    message_id: str
    node_id: int
    sha256: str | None = None
    error: int = 0
    reason: str = ""


class Answer(_Line):
    """`at`: the app's clock from now on. `is_replayed`: there are more facts to answer from."""

    kind: Literal["answer"] = "answer"
    call: int
    at: float
    ids: tuple[str, ...] = ()
    replies: tuple[Reply, ...] = ()
    is_replayed: bool = False


class Differs(_Line):
    """The app did something else than in its first run. `text` says what; the two contents, by
    digest, where they are what differs: `was` in `inbox`, `now` in `outbox`."""

    kind: Literal["differs"] = "differs"
    call: int
    text: str
    was: str | None = None
    now: str | None = None


Answered: TypeAlias = Annotated[Answer | Differs, Field(discriminator="kind")]
ANSWERS: TypeAdapter[Answer | Differs] = TypeAdapter(Answered)
