"""What a site allows, besides what it was asked: its operator's own rules, in `policy.json`.

`flowerbed client policy` writes the file, the agent reads it before it claims a lease and before
each work order. It is checked in the agent, which runs no app's code.
"""

from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from flowerbed.contracts.apps import is_pushed
from flowerbed.contracts.bundle import Bundle
from flowerbed.contracts.signed import Claims, Manifest
from flowerbed.contracts.values import Sha256, Token
from flowerbed.runner import publishers
from flowerbed.runner.errors import BadInput, Refused
from flowerbed.runner.state import StateDir, write_json

CODE = "policy"
"""Refusals by these rules have a code `policy-<rule>`."""

SUPERLINK = "superlink"

Epochs = Annotated[int, Field(ge=1, le=1_000_000)]
Positive = Annotated[float, Field(gt=0)]


def _publisher(name: str) -> str:
    if not publishers.is_name(name):
        raise ValueError(f"{name!r} is no publisher's key: `flowerbed app key FILE` prints one")
    return name


Publisher = Annotated[str, AfterValidator(_publisher)]


class SitePolicy(BaseModel):
    """The rules of one site.

    `apps`: bundles that may run here, by sha256. `any_app`: every bundle may.
    `publishers`: whose signed bundles may, by public key.
    `builtin_apps`: the apps that ship with this version may.
    `tenants`: whose federations may run here; None: of the tenant that the site was invited to.
    `max_local_epochs`: of one work order. `max_epochs`: of all work under one lease.
    `min_noise_multiplier`, `max_clipping_norm`: what a federation's differential privacy must
    give at least; one that says nothing of them is refused.
    `label_entropy`: a federation that weighs by it may be told how this site's labels are spread.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    apps: tuple[Sha256, ...] = ()
    any_app: bool = False
    publishers: tuple[Publisher, ...] = ()
    builtin_apps: bool = True
    tenants: tuple[Token, ...] | None = None
    max_local_epochs: Epochs | None = None
    max_epochs: Epochs | None = None
    min_noise_multiplier: Positive | None = None
    max_clipping_norm: Positive | None = None
    label_entropy: bool = True

    @classmethod
    def load(cls, state: StateDir) -> "SitePolicy":
        """The rules as they are now; the defaults where nobody wrote any.

        Raises:
            BadInput: there is a file, and it cannot be read: then nothing is allowed.
        """
        try:
            return cls.model_validate_json(state.policy.read_bytes())
        except FileNotFoundError:
            return cls()
        except (OSError, ValidationError) as error:
            raise BadInput(f"{state.policy} cannot be read: {_gist(error)}") from error

    def save(self, state: StateDir) -> None:
        write_json(state.policy, self.model_dump(mode="json"))

    def changed(self, changes: dict[str, Any]) -> "SitePolicy":
        """Raises: BadInput: a value that no rule can have."""
        try:
            return SitePolicy.model_validate({**self.model_dump(), **changes})
        except ValidationError as error:
            raise BadInput(_gist(error)) from error

    def check_offer(self, manifest: Manifest) -> None:
        """May a lease on these terms be claimed?

        Raises:
            Refused: with the first rule that forbids it.
        """
        self.check_claims(manifest)
        ordered = manifest.hyper_parameters.get("local_epochs", 1)
        self.check_epochs(int(ordered) if isinstance(ordered, int | float) else 1, 0)
        if self.max_epochs is not None and manifest.runtime == SUPERLINK:
            raise _refused(
                "epochs",
                f"max_epochs is {self.max_epochs} here, and nobody counts those of a SuperNode",
            )
        self.check_disclosure(manifest.weighs_by_entropy)
        for rule in ("min_noise_multiplier", "max_clipping_norm"):
            if (wanted := getattr(self, rule)) is not None:
                raise _refused(
                    "privacy",
                    f"{rule} is {wanted:g} here, and the federation gives no differential privacy",
                )

    def check_claims(self, claims: Claims, bundle: Bundle | None = None) -> None:
        """May this app run here, for this tenant? Of a manifest, and of each order.

        `bundle`: the app, once it is here. Before, one that somebody may have signed is let
        through: fetched, it is asked about again.

        Raises:
            Refused: with the first rule that forbids it.
        """
        if self.tenants is not None and claims.tenant not in self.tenants:
            raise _refused("tenant", f"tenant {claims.tenant!r} is not among tenants")
        if not is_pushed(claims.app):
            if not self.builtin_apps:
                raise _refused("app", f"builtin_apps is false, and the app is {claims.app}")
        elif not self.any_app and claims.code_hash not in self.apps:
            self._check_signed(claims.app, bundle)

    def _check_signed(self, app: str, bundle: Bundle | None) -> None:
        if not self.publishers:
            raise _refused("app", f"{app} is not among apps")
        if bundle is not None and publishers.signer_of(bundle, self.publishers) is None:
            raise _refused("app", f"{app} is not among apps, and none of publishers has signed it")

    def check_disclosure(self, wants_entropy: bool) -> None:
        """May the federation be told what it asks for? Of a manifest, and of each order.

        Raises:
            Refused: a rule forbids it.
        """
        if wants_entropy and not self.label_entropy:
            raise _refused("disclosure", "label_entropy is false, and the federation weighs by it")

    def check_epochs(self, ordered: int, trained: int) -> None:
        """May so many more passes over the data be trained under the lease?

        Raises:
            Refused: a rule forbids it.
        """
        if self.max_local_epochs is not None and ordered > self.max_local_epochs:
            raise _refused(
                "epochs", f"{ordered} epochs a round, max_local_epochs {self.max_local_epochs}"
            )
        if self.max_epochs is not None and ordered > 0 and trained + ordered > self.max_epochs:
            raise _refused(
                "epochs",
                f"{trained} epochs trained, {ordered} ordered, max_epochs {self.max_epochs}",
            )


def is_policy(code: str) -> bool:
    """Whether a refusal's code is one of these rules'."""
    return code.startswith(f"{CODE}-")


def _refused(rule: str, words: str) -> Refused:
    return Refused(f"{CODE}-{rule}", f"the site's policy does not allow it: {words}")


def _gist(error: OSError | ValidationError) -> str:
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"])
    return f"{place}: {first['msg']}" if place else str(first["msg"])
