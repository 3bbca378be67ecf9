"""What can go wrong with a stack on one machine, and who can do something about it.

EmbeddedError
├── BadInput            the caller named something that cannot be; exit code 2
├── NotRunning          there is no stack in that state directory
└── ComponentFailed     a server or service did not start; its log tells why
"""


class EmbeddedError(Exception):
    """Base of every error that this package raises on purpose; one readable line."""


class BadInput(EmbeddedError):
    """A directory or a name that cannot be used."""


class NotRunning(EmbeddedError):
    """No stack runs in the state directory, or none was ever started there."""


class ComponentFailed(EmbeddedError):
    """A component did not become ready."""

    def __init__(self, component: str, reason: str, log_tail: str = "") -> None:
        super().__init__(f"{component} did not start: {reason}")
        self.component = component
        self.reason = reason
        self.log_tail = log_tail
