"""What can go wrong at a site, and who can do something about it.

RunnerError
├── BadInput        the person at the site named something that cannot be; exit code 2
├── NotReachable    the control plane or the store did not answer: wait and try again; exit code 1
├── NotAdmitted     the control plane answered 403: this client may not work now
├── LeaseLost       the lease is over or belongs to a later epoch: drop its work
├── DoorRefused     the control plane refused the request itself
└── Refused         this site refuses work, or could not do it; it tells the control plane why
"""


class RunnerError(Exception):
    """Base of every error that the runner raises on purpose; one readable line."""


class BadInput(RunnerError):
    """A folder, an invite or a setting that cannot be used."""


class NotReachable(RunnerError):
    """No answer. `retry_after`: how many seconds the other side asked us to wait."""

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class NotAdmitted(RunnerError):
    """The client is revoked, or its certificate is not one the control plane takes."""


class LeaseLost(RunnerError):
    """Ends all work under the lease."""


class DoorRefused(RunnerError):
    def __init__(self, status: int, code: str, detail: str) -> None:
        super().__init__(f"{code} ({status}): {detail}")
        self.status = status
        self.code = code


class Refused(RunnerError):
    """`code` is stable, `detail` is readable; neither holds a path or a name of the site.

    `at_site`: more, for the eyes of the site alone.
    """

    def __init__(self, code: str, detail: str, at_site: str = "") -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail
        self.at_site = at_site

    @property
    def in_full(self) -> str:
        return f"{self} ({self.at_site})" if self.at_site else str(self)
