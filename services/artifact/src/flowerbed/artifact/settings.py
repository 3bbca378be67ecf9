"""What the artifact service must be told."""

from pydantic import Field, SecretStr
from pydantic_settings import SettingsConfigDict

from flowerbed.events.settings import ServiceSettings


class ArtifactSettings(ServiceSettings):
    """`missing_attempts`: how often an object that is not in S3 is looked for."""

    model_config = SettingsConfigDict(env_prefix="FLOWERBED_ARTIFACT_")

    s3_endpoint: str
    s3_access_key: str
    s3_secret_key: SecretStr
    s3_bucket: str = "flowerbed"
    missing_attempts: int = Field(default=5, ge=1)
