"""Why a federation cannot be simulated here."""

from flowerbed.events.errors import FlowerbedError


class CannotSimulate(FlowerbedError):
    """`code` is stable; both are what the virtual clients decline their leases with."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
