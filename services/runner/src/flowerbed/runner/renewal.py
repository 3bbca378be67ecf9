"""The certificate renews itself long before it runs out, with a new key pair each time."""

import asyncio
import logging
import random
from datetime import datetime, timedelta

from flowerbed.runner import clock
from flowerbed.runner.errors import BadInput, DoorRefused, NotAdmitted, NotReachable
from flowerbed.runner.identity import IdentityStore, new_key, signing_request
from flowerbed.runner.patience import patiently
from flowerbed.runner.site import Site

logger = logging.getLogger(__name__)

RENEW_AFTER = 2 / 3
JITTER = 0.05
"""Part of the certificate's life by which sites that enrolled together drift apart."""
LONGEST_SLEEP = 600.0
"""A sleeping machine's clock of seconds stands still: look at the calendar now and then."""
REFUSED_PAUSE = 60.0


def renewal_at(received_at: datetime, expires_at: datetime, jitter: float) -> datetime:
    """The moment to renew; `jitter` in [0, 1] makes it a little later."""
    return received_at + (expires_at - received_at) * (RENEW_AFTER + JITTER * jitter)


async def keep_renewed(site: Site, store: IdentityStore) -> None:
    """Renew for ever.

    Raises:
        BadInput: the certificate ran out before anyone could renew it.
    """
    while True:
        due = renewal_at(store.received_at(), store.expires_at(), random.random())
        await _sleep_until(due)
        await _renew(site, store)


async def _sleep_until(due: datetime) -> None:
    while True:
        left = _seconds_until(due)
        if left <= 0:
            return
        await asyncio.sleep(min(left, LONGEST_SLEEP))


async def _renew(site: Site, store: IdentityStore) -> None:
    expires_at = store.expires_at()
    key = new_key()
    request = signing_request(key, site.identity.client_id, site.identity.tenant)
    try:
        answer = await patiently(
            lambda: site.door.renew(request), until=(expires_at + clock.doubt()).timestamp()
        )
    except NotReachable as error:
        raise BadInput(
            f"the certificate ran out at {expires_at}: a new invite is needed"
        ) from error
    except (DoorRefused, NotAdmitted) as error:
        logger.warning("the certificate is not renewed: %s", error)
        site.board.error(f"the certificate is not renewed: {error}")
        await asyncio.sleep(min(REFUSED_PAUSE, _seconds_until(expires_at) + 1))
        return
    store.save_certificate(key, answer.certificate_pem)
    await site.door.reconnect()
    site.board.status.certificate_expires_at = store.expires_at()
    site.board.write()
    logger.info("the certificate is renewed until %s", store.expires_at())


def _seconds_until(moment: datetime) -> float:
    return max(0.0, (moment - clock.utc()) / timedelta(seconds=1))
