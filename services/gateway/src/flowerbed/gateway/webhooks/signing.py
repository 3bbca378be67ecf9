"""Standard Webhooks: the secret, and the three headers by which a receiver knows us.

https://www.standardwebhooks.com: HMAC-SHA256 over `id.timestamp.body`, as `v1,<base64>`.
"""

import base64
import secrets
from datetime import datetime

from standardwebhooks import Webhook

PREFIX = "whsec_"
_BYTES = 32


def new_secret() -> str:
    return PREFIX + base64.b64encode(secrets.token_bytes(_BYTES)).decode()


def signed_headers(secret: str, message_id: str, at: datetime, body: str) -> dict[str, str]:
    """`message_id` stays the same however often it is sent, so that a receiver can drop repeats.
    `at`, in UTC: a receiver refuses what was signed long ago."""
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": Webhook(secret).sign(message_id, at, body),
    }
