"""Who did it, in words that fit into any header, and a proof that the gateway said so."""

import hashlib
import hmac
from urllib.parse import quote

LONGEST_ACTOR = 512
ACTOR_HEADER = "flowerbed-actor"
"""Between services: for whom a command is given."""

_SAFE = "/:@#?&=+$,;!*'()[]~. %"


def spelled(name: str) -> str:
    """ASCII on one line; everything else percent-encoded."""
    return quote(name.strip(), safe=_SAFE, errors="replace")[:LONGEST_ACTOR]


def proof(secret: str, *facts: str) -> str:
    """Whoever knows the internal token says that these facts belong together."""
    told = "\n".join(facts).encode(errors="replace")
    return hmac.new(secret.encode(), b"actor\n" + told, hashlib.sha256).hexdigest()


def is_proven(given: str, secret: str, *facts: str) -> bool:
    return hmac.compare_digest(given.encode(errors="replace"), proof(secret, *facts).encode())
