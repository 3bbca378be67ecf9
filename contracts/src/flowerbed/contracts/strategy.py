"""`spec.strategy`: how updates become an aggregate."""

from collections.abc import Mapping
from typing import Annotated

from pydantic import Field, StringConstraints, ValidationInfo, field_validator, model_validator

from flowerbed.contracts import strategies
from flowerbed.contracts.apps import OBJECT_PATTERN
from flowerbed.contracts.parameter import Parameter, snake
from flowerbed.contracts.policy import RoundPolicy
from flowerbed.contracts.section import Section
from flowerbed.contracts.strategies import CUSTOM, StrategyName, Weighting
from flowerbed.contracts.values import Scalar

ObjectName = Annotated[str, StringConstraints(pattern=OBJECT_PATTERN)]


class Strategy(Section):
    """How updates become an aggregate; `strategies.py` says which `params` each takes.

    `custom`: `MODULE:NAME` of a Flower Strategy in the app, or of what makes one of the `params`.
    """

    name: StrategyName = "fedavg"
    custom: Annotated[ObjectName | None, Field(validate_default=True)] = None
    params: Annotated[dict[str, Parameter], Field(validate_default=True)] = {}
    weighting: Weighting = Weighting()

    @model_validator(mode="before")
    @classmethod
    def _named(cls, section: object) -> object:
        """Who names an object of the app need not say `name: custom` too."""
        if isinstance(section, Mapping) and section.get("custom") and "name" not in section:
            return {**section, "name": CUSTOM}
        return section

    @field_validator("custom")
    @classmethod
    def _of_one_name(cls, custom: str | None, info: ValidationInfo) -> str | None:
        name = info.data.get("name")
        if name is not None and (name == CUSTOM) != (custom is not None):
            raise ValueError("MODULE:NAME of a Flower Strategy, with name custom and no other")
        return custom

    @field_validator("params")
    @classmethod
    def _known_params(cls, params: dict[str, Scalar], info: ValidationInfo) -> dict[str, Scalar]:
        params = {snake(key): value for key, value in params.items()}
        name = info.data.get("name")
        return params if name is None else strategies.checked(name, params)

    @field_validator("weighting")
    @classmethod
    def _weighs(cls, weighting: Weighting, info: ValidationInfo) -> Weighting:
        if told := strategies.refused_weighting(info.data.get("name", ""), weighting):
            raise ValueError(told)
        return weighting

    def refusal_of(self, policy: RoundPolicy, min_clients: int) -> str | None:
        """What is allowed instead, where it cannot work under that policy."""
        return strategies.refused_policy(self.name, self.params, policy, min_clients)

    @property
    def proximal_mu(self) -> float | None:
        """The weight of the proximal term (Li et al. 2020, eq. 2); None without one."""
        mu = self.params.get("proximal_mu")
        return None if mu is None else float(mu)
