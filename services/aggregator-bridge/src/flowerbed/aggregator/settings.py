"""What the aggregator-bridge must be told."""

from pathlib import Path

from pydantic import Field, SecretStr
from pydantic_settings import SettingsConfigDict

from flowerbed.events.settings import ServiceSettings


class AggregatorSettings(ServiceSettings):
    """`spool_directory` belongs to one process alone: it is emptied when the service starts.

    `runs_pushed_apps`: an app of somebody's own may make its base checkpoint here.
    `superlink_address`: HOST:PORT of Flower's SuperLink, where there is one; `superlink_ca_file`:
    whom it is certified by.
    `lease_url`: of the lease service's replicas, asked for SuperNodes and for work to simulate.
    `runs_simulations`: a spec may have virtual clients run here, on folders and Ray that it names.
    `max_norm`: how far an update may be from its base (L2); None is no limit.
    """

    model_config = SettingsConfigDict(env_prefix="FLOWERBED_AGGREGATOR_")

    s3_endpoint: str
    s3_access_key: str
    s3_secret_key: SecretStr
    s3_bucket: str = "flowerbed"
    spool_directory: Path
    max_examples: int = Field(default=1_000_000, ge=1)
    max_norm: float | None = Field(default=None, gt=0)
    initialize_timeout_seconds: float = Field(default=300.0, gt=0)
    runs_pushed_apps: bool = True
    runs_simulations: bool = True
    n_screenings: int = Field(default=2, ge=1)
    superlink_address: str | None = None
    superlink_ca_file: Path | None = None
    lease_url: tuple[str, ...] = ()
