"""FederationSpec: the one document that a person writes. `apiVersion: flowerbed/v1`.

Keys are snake_case; the camelCase spelling of each is accepted too. Unknown keys are refused.
Rules of v1 may only be loosened: an accepted spec is kept in `fl.federation.created` for ever.
"""

import json
from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Annotated, Any, Literal

from pydantic import (
    ConfigDict,
    Field,
    StringConstraints,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from flowerbed.contracts import strategies, whole
from flowerbed.contracts.apps import (
    APP_PATTERN,
    BUILTIN,
    FLOWERS_STRATEGIES,
    MODEL,
    MODEL_PATTERN,
    PUSHED,
    is_pushed,
)
from flowerbed.contracts.forms import UpdateForm
from flowerbed.contracts.parameter import Parameter, ParameterName, Text, snake
from flowerbed.contracts.policy import ADDED_LATER, RoundPolicy
from flowerbed.contracts.section import Count, Fraction, Section
from flowerbed.contracts.simulation import Simulation
from flowerbed.contracts.strategies import SCAFFOLD, Weighting
from flowerbed.contracts.strategy import Strategy
from flowerbed.contracts.telemetry import Telemetry
from flowerbed.contracts.values import Scalar, Sha256, Token

Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")]
Tag = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.:=-]{1,64}$")]


@cache
def builtin_apps() -> dict[str, str]:
    """The Flower apps that ship with this version: name to code hash (generated)."""
    text = resources.files("flowerbed.contracts").joinpath("builtin_apps.json").read_text()
    apps: dict[str, str] = json.loads(text)
    return apps


class Metadata(Section):
    name: Name
    tenant: Token = "default"
    labels: dict[Text, Text] = {}


class ModelRef(Section):
    """The base checkpoint (`s3://…`), or the app's own architecture: `builtin:NAME`, or of an app
    of one's own `app:MODULE:NAME`."""

    uri: Annotated[
        str,
        StringConstraints(
            pattern=rf"^(builtin:[a-z0-9-]+|{MODEL_PATTERN}|s3://[^/\s\x00]+/[^\s\x00]+)$"
        ),
    ]
    sha256: Sha256 | None = None
    format: Literal["safetensors"] = "safetensors"


class Train(Section):
    """What the client app is told. Keys beyond these are the app's own parameters."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[ParameterName, Parameter]

    local_epochs: Count = 1
    batch_size: Count = 32
    learning_rate: Annotated[float, Field(gt=0, le=1e3, strict=True)] = 0.01
    seed: Annotated[int, Field(ge=0, lt=2**31, strict=True)] = 0

    @model_validator(mode="before")
    @classmethod
    def _one_spelling(cls, section: object) -> object:
        """The app's own parameters may be written in both spellings too, and are kept in one."""
        if not isinstance(section, Mapping):
            return section
        spelled: dict[object, object] = {}
        for key, value in section.items():
            name = snake(key) if isinstance(key, str) else key
            spelled[key if name in spelled else name] = value
        return spelled

    @property
    def app_parameters(self) -> dict[str, Scalar]:
        return dict(self.__pydantic_extra__ or {})


class ClientSelector(Section):
    """Which enrolled clients may take part: all `tags` must be among a client's own."""

    tenant: Token | None = None
    tags: tuple[Tag, ...] = ()
    embedding_query: str | None = None

    @field_validator("embedding_query")
    @classmethod
    def _built(cls, query: str | None) -> str | None:
        if query is not None:
            raise ValueError("not built yet: select by tags")
        return query


class DatasetSpec(Section):
    """Which datasets may take part; an empty list admits any.

    `uris`: `local:TASK`. `shards`: anonymous labels. `hashes`: dataset digests.
    """

    uris: tuple[Annotated[str, StringConstraints(pattern=r"^local:[a-z0-9-]{1,60}$")], ...] = ()
    shards: tuple[Annotated[str, StringConstraints(pattern=r"^[a-z0-9-]{1,100}$")], ...] = ()
    hashes: tuple[Sha256, ...] = ()


SHORTEST_TTL_AT_FIRST = 60
"""Seconds, in the first release."""
APPS_AT_FIRST = frozenset(("builtin:hospital", "builtin:vision"))


class LeaseLimits(Section):
    """`ttl_seconds`: how long a silent client keeps its lease. The rest bounds all its work."""

    ttl_seconds: Annotated[int, Field(ge=15, le=604_800, strict=True)] = 120
    max_epochs: Count | None = None
    max_tokens: Annotated[int, Field(ge=1, lt=2**63, strict=True)] | None = None


class Artifacts(Section):
    """Where checkpoints lie: `s3://<bucket>/<prefix>/<sha256>.safetensors`."""

    bucket: Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$")] = (
        "flowerbed"
    )
    prefix: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+)*$")] = (
        "checkpoints"
    )


class Spec(Section):
    app: Annotated[str, StringConstraints(pattern=APP_PATTERN)]
    server_app: Literal["strategy", "whole"] = "strategy"
    model_ref: Annotated[ModelRef | None, Field(validate_default=True)] = None
    strategy: Strategy = Strategy()
    num_rounds: Count
    client_fraction: Fraction = 1.0
    min_clients: Count = 2
    round_policy: Annotated[RoundPolicy, Field(validate_default=True)] = RoundPolicy()
    train: Train = Train()
    dp: dict[str, Parameter] | None = None
    secure_agg: Annotated[bool, Field(strict=True)] = False
    client_selector: ClientSelector = ClientSelector()
    dataset_spec: DatasetSpec = DatasetSpec()
    lease: LeaseLimits = LeaseLimits()
    artifacts: Artifacts = Artifacts()
    telemetry: Telemetry | None = None
    runtime: Literal["bus", "superlink", "simulation"] = "bus"
    simulation: Annotated[Simulation | None, Field(validate_default=True)] = None
    update: Annotated[UpdateForm, Field(validate_default=True)] = UpdateForm()

    @field_validator("app")
    @classmethod
    def _known_app(cls, app: str) -> str:
        known = [f"{BUILTIN}{name}" for name in builtin_apps()]
        if app not in known and not is_pushed(app):
            raise ValueError(
                f"unknown app: one of {', '.join(known)}, or fab:SHA256 of a pushed one"
            )
        return app

    @field_validator("server_app")
    @classmethod
    def _app_of_ones_own(cls, server_app: str, info: ValidationInfo) -> str:
        if server_app == "whole" and not is_pushed(info.data.get("app", PUSHED)):
            raise ValueError("strategy: an app that ships with this version has its rounds run")
        return server_app

    @field_validator("strategy", "client_fraction", "round_policy", "update", "runtime")
    @classmethod
    def _left_to_the_whole(cls, value: Any, info: ValidationInfo) -> Any:
        is_whole = info.data.get("server_app") == "whole"
        if is_whole and (told := whole.refused(info.field_name or "", value)):
            raise ValueError(told)
        return value

    @field_validator("model_ref")
    @classmethod
    def _model_of_the_app(cls, model: ModelRef | None, info: ValidationInfo) -> ModelRef | None:
        app, is_whole = info.data.get("app"), info.data.get("server_app") == "whole"
        if is_whole and model is not None:
            raise ValueError("no model_ref: with server_app whole the app makes its own arrays")
        if model is None:
            if not is_whole and "server_app" in info.data:
                raise PydanticCustomError("missing", "required")
            return None
        if app is None or model.uri.startswith("s3:"):
            return model
        if is_pushed(app) and not model.uri.startswith(MODEL):
            raise ValueError(f"uri must be {MODEL}MODULE:NAME or s3://… for an app of your own")
        if not is_pushed(app) and model.uri != app:
            raise ValueError(f"uri must be {app} or s3://…, not another app's architecture")
        return model

    @field_validator("strategy")
    @classmethod
    def _strategy_of_the_app(cls, strategy: Strategy, info: ValidationInfo) -> Strategy:
        app, custom = info.data.get("app"), strategy.custom
        if app is None or custom is None or is_pushed(app):
            return strategy
        if not custom.startswith(FLOWERS_STRATEGIES):
            raise ValueError(f"{FLOWERS_STRATEGIES}NAME, or an app of your own that has {custom}")
        return strategy

    @field_validator("round_policy")
    @classmethod
    def _policy_of_the_strategy(cls, policy: RoundPolicy, info: ValidationInfo) -> RoundPolicy:
        strategy, n = info.data.get("strategy"), info.data.get("min_clients")
        if strategy is not None and n is not None and (told := strategy.refusal_of(policy, n)):
            raise ValueError(told)
        return policy

    @property
    def is_whole(self) -> bool:
        """Whether the app's ServerApp runs as it is, instead of our rounds."""
        return self.server_app == "whole"

    @property
    def code_hash(self) -> Sha256:
        """Which code the app is: of a pushed one its bundle's digest, which names it."""
        if is_pushed(self.app):
            return self.app.removeprefix(PUSHED)
        return builtin_apps()[self.app.removeprefix(BUILTIN)]

    @field_validator("dp", mode="before")
    @classmethod
    def _dp_built(cls, dp: object) -> object:
        if dp is not None:
            raise ValueError("differential privacy is not built yet: leave dp out")
        return dp

    @field_validator("secure_agg")
    @classmethod
    def _secure_agg_built(cls, wanted: bool) -> bool:
        if wanted:
            raise ValueError("secure aggregation is not built yet: false")
        return wanted

    @field_validator("runtime")
    @classmethod
    def _keeps_what_the_strategy_needs(cls, runtime: str, info: ValidationInfo) -> str:
        strategy = info.data.get("strategy")
        if strategy is not None and strategy.name == SCAFFOLD and runtime != "bus":
            raise ValueError(f"{SCAFFOLD} has clients that remember: runtime bus")
        return runtime

    @field_validator("update")
    @classmethod
    def _form_of_the_strategy(cls, update: UpdateForm, info: ValidationInfo) -> UpdateForm:
        strategy, runtime = info.data.get("strategy"), info.data.get("runtime")
        if strategy is None or runtime is None:
            return update
        if told := update.refusal_of(strategy.name, runtime):
            raise ValueError(told)
        return update

    @property
    def hyper_parameters(self) -> dict[str, Scalar]:
        """What a lease's manifest says of the training. A whole ServerApp is told only what the
        spec says, and its number of rounds where it has a name for it."""
        train, names = self.train, ("local_epochs", "batch_size", "learning_rate", "seed")
        if not self.is_whole:
            return {**train.app_parameters, **{name: getattr(train, name) for name in names}}
        said = [name for name in names if name in train.model_fields_set]
        return {
            **train.app_parameters,
            **{name: getattr(train, name) for name in said},
            whole.ROUNDS: self.num_rounds,
        }

    @field_validator("simulation")
    @classmethod
    def _simulation_of_the_runtime(
        cls, simulation: Simulation | None, info: ValidationInfo
    ) -> Simulation | None:
        runtime, least = info.data.get("runtime"), info.data.get("min_clients", 1)
        if simulation is None:
            if runtime == "simulation":
                raise ValueError("{clients: N} with runtime simulation")
            return None
        if runtime not in (None, "simulation"):
            raise ValueError(f"none with runtime {runtime}")
        if simulation.clients < least:
            raise ValueError(f"clients: at least min_clients, which is {least}")
        return simulation

    @property
    def n_expected(self) -> int:
        """Clients that must have joined before a round starts: of virtual ones, all."""
        return max(self.min_clients, 0 if self.simulation is None else self.simulation.clients)


class FederationSpec(Section):
    """One federation, declared."""

    api_version: Literal["flowerbed/v1"]
    kind: Literal["Federation"] = "Federation"
    metadata: Metadata
    spec: Spec

    def document(self) -> dict[str, object]:
        """The spec as plain JSON values, snake_case, every default written out."""
        return self._dumped()

    @property
    def release(self) -> int:
        """The first release that can read it: 2 where it says what release 1 had no words for."""
        spec = self.brief()["spec"]
        says_more = set(ADDED_LATER) & spec["round_policy"].keys() or "telemetry" in spec
        is_short = self.spec.lease.ttl_seconds < SHORTEST_TTL_AT_FIRST
        strategy = self.spec.strategy
        is_later = strategy.name not in strategies.AT_FIRST or strategy.weighting != Weighting()
        is_later = is_later or self.spec.app not in APPS_AT_FIRST or not self.spec.update.is_full
        is_later = is_later or self.spec.runtime != "bus" or self.spec.is_whole
        return 2 if says_more or is_short or is_later else 1

    def brief(self) -> dict[str, Any]:
        """As the first release writes and reads it: later keys only where they say something."""
        document = self._dumped()
        policy, defaults = document["spec"]["round_policy"], RoundPolicy().model_dump(mode="json")
        for key in ADDED_LATER:
            if policy[key] == defaults[key]:
                del policy[key]
        if self.spec.strategy.custom is None:
            del document["spec"]["strategy"]["custom"]
        if self.spec.strategy.weighting == Weighting():
            del document["spec"]["strategy"]["weighting"]
        for section in ("telemetry", "simulation"):
            if document["spec"][section] is None:
                del document["spec"][section]
        if self.spec.update.is_full:
            del document["spec"]["update"]
        if not self.spec.is_whole:
            del document["spec"]["server_app"]
        return document

    def _dumped(self) -> dict[str, Any]:
        """Of what a whole ServerApp is told, only what was said: its own defaults stand else."""
        document: dict[str, Any] = self.model_dump(mode="json")
        if self.spec.is_whole:
            document["spec"]["train"] = self.spec.train.model_dump(mode="json", exclude_unset=True)
            del document["spec"]["model_ref"]
        return document
