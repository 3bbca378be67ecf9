"""What a simulation's process is told, on its standard input: it holds secrets."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from flowerbed.contracts.simulation import Simulation
from flowerbed.contracts.spec import FederationSpec

OVER = 0
"""Exit code: the federation is over."""
CANNOT = 3
"""Exit code: it cannot be simulated here; the virtual clients have said why."""


class Assignment(BaseModel):
    """`folder` and `ray_folder` are the process's own; the second has a short name, for sockets.

    `runs_pushed_apps`: an app that does not ship with us may run here.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    federation_id: str
    tenant: str
    spec: FederationSpec
    code_hash: str
    lease_urls: tuple[str, ...]
    internal_token: str = Field(repr=False)
    s3_endpoint: str
    s3_access_key: str
    s3_secret_key: str = Field(repr=False)
    bucket: str
    folder: Path
    ray_folder: Path
    runs_pushed_apps: bool

    @property
    def simulation(self) -> Simulation:
        simulation = self.spec.spec.simulation
        assert simulation is not None, "the spec's rules demand it"
        return simulation
