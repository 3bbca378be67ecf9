"""What the lease service must be told besides what every service is."""

from pathlib import Path

from pydantic import SecretStr
from pydantic_settings import SettingsConfigDict

from flowerbed.events.settings import ServiceSettings


class LeaseSettings(ServiceSettings):
    model_config = SettingsConfigDict(env_prefix="FLOWERBED_LEASE_")

    client_socket: Path
    enrol_socket: Path
    client_url: str
    enrol_url: str
    ca_certificate_file: Path
    ca_key_file: Path
    signing_key_file: Path
    server_certificate_file: Path | None = None
    """Of the doors, where it is known: only to tell when it ends."""
    certificate_ttl_seconds: int = 7 * 86_400
    """Long enough for a site that is off over a weekend; an agent renews at two thirds."""
    s3_endpoint: str
    s3_access_key: SecretStr
    s3_secret_key: SecretStr
    s3_bucket: str
