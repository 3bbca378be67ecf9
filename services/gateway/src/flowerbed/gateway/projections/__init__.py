"""Read models, one a file; each can be rebuilt from the gateway's own copy of the events."""

from flowerbed.gateway.projections.apps import apps
from flowerbed.gateway.projections.artifacts import artifacts
from flowerbed.gateway.projections.clients import clients
from flowerbed.gateway.projections.federations import federations
from flowerbed.gateway.projections.memberships import memberships
from flowerbed.gateway.projections.round_updates import round_updates
from flowerbed.gateway.projections.rounds import rounds

PROJECTIONS = (federations, rounds, round_updates, clients, memberships, artifacts, apps)
