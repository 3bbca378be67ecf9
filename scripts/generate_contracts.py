"""Write what is generated: JSON Schemas, the AsyncAPI document, the GraphQL schema, app hashes.

python scripts/generate_contracts.py            write the files
python scripts/generate_contracts.py --check    exit 1 and name them if any is stale
"""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from faststream.nats import NatsBroker
from faststream.specification import AsyncAPI
from pydantic import BaseModel

from flowerbed.contracts import door, signed
from flowerbed.contracts.catalogue import EVENTS
from flowerbed.contracts.spec import FederationSpec
from flowerbed.contracts.topology import STREAMS, SUBMISSION_SUBJECT, SUBMISSIONS
from flowerbed.flower_apps import registry
from flowerbed.gateway.graph.schema import schema

ROOT = Path(__file__).resolve().parent.parent
CONTRACTS = ROOT / "contracts"
SCHEMAS = CONTRACTS / "schemas"
DOOR = (
    door.Invite, door.Enrolment, door.Enrolled, door.CertificateRequest, door.Certificate,
    door.LeasePoll, door.LeaseOffers, door.LeaseClaim, door.LeaseHeld, door.LeaseDecline,
    door.LeaseBeat, door.WorkPoll, door.WorkOffer, door.WorkReport, door.WorkFailure,
    door.LeaseRelease, door.LogBatch,
)  # fmt: skip
DIALECT = "https://json-schema.org/draft/2020-12/schema"


def generated() -> dict[Path, str]:
    """Every generated file and what belongs in it."""
    files = {SCHEMAS / "federation-spec.json": _schema(FederationSpec)}
    for event in EVENTS:
        files[SCHEMAS / "events" / f"{event.type}.v{event.schema_version}.json"] = _schema(event)
    for model in (signed.Manifest, signed.WorkOrder):
        files[SCHEMAS / "signed" / f"{model.__name__}.json"] = _schema(model)
    for message in DOOR:
        files[SCHEMAS / "door" / f"{message.__name__}.json"] = _schema(message)
    files[CONTRACTS / "asyncapi.json"] = _text(_asyncapi())
    files[CONTRACTS / "schema.graphql"] = schema.as_str() + "\n"
    hashes = {name: registry.code_hash(name) for name in sorted(registry.BUILTIN)}
    files[CONTRACTS / "src/flowerbed/contracts/builtin_apps.json"] = _text(hashes)
    return files


def _schema(model: type[BaseModel]) -> str:
    return _text({"$schema": DIALECT, **model.model_json_schema()})


def _asyncapi() -> Mapping[str, Any]:
    """Every channel: what people publish, and each fact on the stream of its owner."""
    broker = NatsBroker()
    broker.publisher(
        SUBMISSION_SUBJECT,
        title=SUBMISSION_SUBJECT,
        description=f"Whoever asks publishes a FederationSpec here (JetStream {SUBMISSIONS}).",
        schema=FederationSpec,
    )
    owners = {event_type: stream for stream in STREAMS for event_type in stream.types}
    for event in EVENTS:
        stream = owners[event.type]
        broker.publisher(
            f"{event.type}.{{tenant}}.{{federation_id}}",
            title=event.type,
            description=f"{_summary(event)} Recorded by {stream.owner} (JetStream {stream.name}).",
            schema=event,
        )
    specification = AsyncAPI(
        broker,
        title="Flowerbed",
        version="0.1.0",
        description="CloudEvents 1.0 in NATS binary mode: attributes in ce- headers, JSON body.",
        schema_version="3.0.0",
    )
    document: Mapping[str, Any] = json.loads(specification.to_specification().to_json())
    return document


def _summary(event: type[BaseModel]) -> str:
    return (event.__doc__ or event.__name__).strip().splitlines()[0]


def _text(document: Mapping[str, Any]) -> str:
    return json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def main() -> int:
    files = generated()
    known = {*SCHEMAS.rglob("*.json")} - set(files)
    stale = [path for path, text in files.items() if not _holds(path, text)] + sorted(known)
    if "--check" in sys.argv[1:]:
        for path in stale:
            print(f"stale: {path.relative_to(ROOT)}: run make generate")
        return 1 if stale else 0
    for path in known:
        path.unlink()
    for path, text in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    print(f"{len(files)} files, {len(stale)} changed")
    return 0


def _holds(path: Path, text: str) -> bool:
    return path.is_file() and path.read_text() == text


if __name__ == "__main__":
    sys.exit(main())
