"""The form in which updates travel from the sites: the tensors whole, or in fewer bytes.

full        the new values of every tensor
delta       their differences from the base, exactly; deflated
bfloat16    the step from the base, rounded
int8        the step in blocks that share a scale
top_k       the largest elements of the step; the site keeps the rest for its next one

Where a model is tuned by adapters, only the tensors that are trained travel, in any of these forms.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, Self, TypeAlias, get_args

from pydantic import Field, StringConstraints, model_validator

from flowerbed.contracts.section import Section
from flowerbed.contracts.strategies import CUSTOM, ROBUST

FormName: TypeAlias = Literal["full", "delta", "bfloat16", "int8", "top_k"]

KNOWN: frozenset[str] = frozenset(get_args(FormName))
"""Forms that this release writes and reads."""

UPDATE_FORM = "update-form"
"""Code of a lease that is not taken up, since the site cannot write updates in its form."""

DEFAULTS: dict[str, dict[str, Any]] = {"int8": {"block": 1024}, "top_k": {"fraction": 0.01}}
"""What a form needs to be known besides its name."""

MORE_THAN_WEIGHTS = frozenset(("scaffold", "fedxgbbagging", "fedxgbcyclic"))
"""Strategies whose updates are not one model's weights."""


ADAPTER = "adapter"
FROZEN = "flowerbed.frozen"
"""In the metadata of a checkpoint of trained tensors alone: the sha256 of what has the others."""
Glob: TypeAlias = Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f\x7f]{1,200}$")]
"""Of tensors' names, as the shell has them: `*.lora_*`."""


def label(form: str, trainable: Sequence[str]) -> str:
    """In few words: `int8`, `adapter`, `adapter+int8`."""
    if not trainable:
        return form
    return ADAPTER if form == "full" else f"{ADAPTER}+{form}"


class UpdateForm(Section):
    """`block`: elements that share a scale, of int8. `fraction`: of a tensor's elements, of top_k.

    Both are None of the other forms. `trainable`: tensors that travel, while the others stay as
    they are in the base; none named is all.
    """

    form: FormName = "full"
    block: Annotated[int, Field(ge=16, le=65_536, strict=True)] | None = None
    fraction: Annotated[float, Field(gt=0, le=0.5, strict=True)] | None = None
    trainable: Annotated[tuple[Glob, ...], Field(max_length=32)] = ()

    @model_validator(mode="before")
    @classmethod
    def _written_out(cls, section: object) -> object:
        if not isinstance(section, Mapping):
            return section
        form = section.get("form")
        return {**(DEFAULTS.get(form, {}) if isinstance(form, str) else {}), **section}

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        for key in ("block", "fraction"):
            (form,) = (name for name, needs in DEFAULTS.items() if key in needs)
            if (getattr(self, key) is not None) != (self.form == form):
                raise ValueError(f"{key} belongs to form {form}, and to no other")
        return self

    @property
    def is_full(self) -> bool:
        """As the first release has it."""
        return self == UpdateForm()

    @property
    def label(self) -> str:
        return label(self.form, self.trainable)

    def refusal_of(self, strategy: str, runtime: str) -> str | None:
        """What is allowed instead, where it cannot work with that strategy or runtime."""
        if self.is_full:
            return None
        if runtime != "bus":
            return f"{self.label} updates need runtime bus: over {runtime}, form full"
        if strategy in MORE_THAN_WEIGHTS:
            return f"{strategy} takes more than the weights of a model: form full"
        if self.form == "top_k" and strategy in ROBUST | {CUSTOM}:
            return (
                f"{strategy} may leave updates out, and top_k counts on each being in the mean:"
                " form full, delta, bfloat16 or int8"
            )
        return None
