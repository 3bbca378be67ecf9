"""What the agent and its worker say to each other: one JSON document a line, over two pipes."""

from typing import Annotated, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

from flowerbed.contracts.signed import MessageType, UpdateTerms, WholeMessage
from flowerbed.contracts.values import Scalar


class _Line(BaseModel):
    """Metrics may be NaN here; the agent drops them and says so in the log."""

    model_config = ConfigDict(frozen=True, ser_json_inf_nan="constants")

    def line(self) -> bytes:
        return self.model_dump_json().encode() + b"\n"


class Hello(_Line):
    """The first line: which app, on which data. Not in the arguments, which anyone can list.

    `folder`, `client_app`, `run_config`: of an app that is not installed here, where it is
    unpacked, what to load there, and what it is told. `node_config`: what the site tells any app.
    `is_traced`: spans that the app records are wanted.
    """

    app: str
    data_path: str
    run_id: int
    node_id: int
    folder: str | None = None
    client_app: str = ""
    run_config: dict[str, Scalar] = {}
    node_config: dict[str, Scalar] = {}
    is_traced: bool = False


class Request(_Line):
    """One Flower message, done in `folder` (see `work_folder`).

    `state_path`: a file named by its sha256, with what the app remembers; None is nothing yet.
    `form`: in which the update is written, None as it is; it steps from the base `base_sha256`.
    `frozen_path`: the file with the tensors that the base's has not.
    `left_path`: a file of what the lease's earlier updates have left out; None is nothing.
    `message`: of a ServerApp of the app's own; `base_path` has its whole content.
    """

    message_type: MessageType
    base_path: str
    folder: str
    has_update: bool
    state_path: str | None = None
    config: dict[str, Scalar]
    seed: int
    form: UpdateTerms | None = None
    base_sha256: str = ""
    left_path: str | None = None
    frozen_path: str | None = None
    message: WholeMessage | None = None


class SpanLine(_Line):
    """A span that the app recorded. `parent`: the place of the line that it belongs to.

    `start` and `end` are nanoseconds since the epoch.
    """

    name: str
    start: int
    end: int
    parent: int | None = None
    attributes: dict[str, Scalar] = {}


class Ready(_Line):
    kind: Literal["ready"] = "ready"


class Result(_Line):
    """`sha256` and `size` are of the update, `state_sha256` of what the app remembers from now on,
    `left_sha256` of what the update has left out. `form_error`: of its form.

    Their files are on disk, and so is this line: an agent that was not there to read it finds it.
    """

    kind: Literal["result"] = "result"
    sha256: str | None
    size: int = 0
    metrics: dict[str, float | int]
    left_out: tuple[str, ...] = ()
    seconds: float
    state_sha256: str | None = None
    left_sha256: str | None = None
    form_error: float | None = None
    spans: tuple[SpanLine, ...] = ()


class AppFailed(_Line):
    """The app raised, or answered with an error. `trace` names modules and lines, no file."""

    kind: Literal["failed"] = "failed"
    code: Literal["app-failed", "bad-reply", "disk-full"]
    trace: str


Answer: TypeAlias = Annotated[Ready | Result | AppFailed, Field(discriminator="kind")]
