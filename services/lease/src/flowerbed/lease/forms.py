"""Whether a client keeps to the form of updates that a federation wants."""

from flowerbed.contracts.door import LeaseClaim
from flowerbed.contracts.forms import UPDATE_FORM
from flowerbed.contracts.spec import FederationSpec
from flowerbed.events.errors import Rejected


class FormNotKept(Rejected):
    """A runner of an earlier release: it does not say that it has read the form."""

    code = UPDATE_FORM
    status = 409


def not_kept(spec: FederationSpec, claim: LeaseClaim) -> str | None:
    """Why the claim cannot be taken; None if it can."""
    update = spec.spec.update
    wanted = None if update.is_full else update.label
    if claim.update_form == wanted:
        return None
    says = claim.update_form or "nothing, as an earlier release does"
    return f"updates travel as {wanted or 'full'}, the client says {says}"
