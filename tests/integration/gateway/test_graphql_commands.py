"""Commands by GraphQL reach their owners; a job is a federation in other words."""

import json

from fastapi.responses import JSONResponse

from flowerbed.gateway.graph.types import JOB_STATUS
from tests.integration.gateway.conftest import Gateway
from tests.integration.gateway.story import FED, REFUSED, TENANT, document, ref, whole_story
from tests.support.graphql import data, error

START = """
mutation ($name: String!, $config: JSON!, $clients: Int, $key: String) {
  startFederatedTrainingJob(
    jobName: $name, config: $config, clients: $clients, idempotencyKey: $key
  ) { id jobName status privacyBudget { epsilon } privacyBudgetReason federation { spec } }
}
"""
JOB = "query ($id: ID!) { getFederatedTrainingJob(id: $id) { id status reason jobName } }"


async def test_a_job_is_started_once_and_asked_for(gateway: Gateway) -> None:
    started = await data(gateway, START, name="heart", config=document(), clients=3, key="k1")
    again = await data(
        gateway, START, name="heart", config=json.dumps(document()), clients=3, key="k1"
    )

    job = started["startFederatedTrainingJob"]
    assert job == again["startFederatedTrainingJob"]
    assert (job["jobName"], job["status"], job["privacyBudget"]) == ("heart", "PENDING", None)
    assert "differential privacy is not built" in job["privacyBudgetReason"]
    assert job["federation"]["spec"]["spec"]["min_clients"] == 3
    found = await data(gateway, JOB, id=job["id"])
    assert found["getFederatedTrainingJob"]["status"] == "PENDING"


async def test_the_spec_part_alone_is_enough(gateway: Gateway) -> None:
    config = {**document()["spec"], "minClients": 2}
    del config["min_clients"]
    started = await data(gateway, START, name="heart", config=config, clients=4)
    spec = started["startFederatedTrainingJob"]["federation"]["spec"]
    assert (spec["metadata"]["name"], spec["metadata"]["tenant"]) == ("heart", "default")
    assert spec["spec"]["min_clients"] == 4


async def test_a_jobs_status_is_that_of_a_queue(gateway: Gateway) -> None:
    await gateway.hear(whole_story().told)
    done = (await data(gateway, JOB, id=FED))["getFederatedTrainingJob"]
    refused = (await data(gateway, JOB, id=REFUSED))["getFederatedTrainingJob"]
    assert (done["status"], refused["status"]) == ("SUCCEEDED", "FAILED")
    assert {one.value for one in JOB_STATUS.values()} == {
        "PENDING", "RUNNING", "SUCCEEDED", "FAILED", "CANCELLED",
    }  # fmt: skip


async def test_every_broken_rule_of_a_spec_is_told(gateway: Gateway) -> None:
    told = await error(gateway, START, name="no good", config=document(num_rounds=0, colour="red"))

    extensions = told["extensions"]
    assert (extensions["code"], extensions["status"]) == ("spec-refused", 422)
    paths = {one["path"] for one in extensions["errors"]}
    assert paths >= {"spec.num_rounds", "spec.colour"}
    for config in ("a: 1\na: 2", ["a"], 7):
        told = await error(gateway, START, name="x", config=config)
        assert told["extensions"]["code"] == "document-unreadable"
    long = await error(gateway, START, name="x", config={"app": "x" * 300_000})
    assert long["extensions"]["status"] == 413


async def test_a_command_reaches_the_owner(gateway: Gateway) -> None:
    await gateway.hear(whole_story().told)
    for verb in ("pause", "resume", "cancel"):
        await _give(gateway, verb)


async def _give(gateway: Gateway, verb: str) -> None:
    path = f"/internal/federations/{FED}/{verb}"
    gateway.behind.answers[path] = JSONResponse({"federation_id": FED, "events": ["fl.x"]})

    query = f"""mutation ($id: ID!) {{ {verb}(id: $id, reason: "lunch") {{
        events federation {{ federationId }} }} }}"""
    done = (await data(gateway, query, id=FED))[verb]

    assert done == {"events": ["fl.x"], "federation": {"federationId": FED}}
    assert ("POST", path, {"tenant": TENANT, "reason": "lunch"}) in gateway.behind.asked


async def test_a_promotion_reaches_the_artifact_service(gateway: Gateway) -> None:
    await gateway.hear(whole_story().told)
    two = ref("two").sha256
    path = f"/internal/artifacts/{two}/promote"
    gateway.behind.answers[path] = JSONResponse({"events": ["fl.artifact.promoted"]})
    query = "mutation ($s: String!, $c: String!) { promoteArtifact(sha256: $s, channel: $c) "
    done = await data(gateway, query + "{ federationId events } }", s=two, c="beta")
    bad = await error(gateway, query + "{ events } }", s=two, c="No Channel")

    assert done["promoteArtifact"] == {"federationId": FED, "events": ["fl.artifact.promoted"]}
    asked = {"tenant": TENANT, "federation_id": FED, "channel": "beta"}
    assert ("POST", path, asked) in gateway.behind.asked
    assert bad["extensions"]["errors"][0]["path"] == "channel"


async def test_an_owners_refusal_is_told_with_its_code(gateway: Gateway) -> None:
    await gateway.hear(whole_story().told)
    problem = {"status": 409, "code": "federation-ended", "detail": "it has ended"}
    gateway.behind.answers[f"/internal/federations/{FED}/cancel"] = JSONResponse(problem, 409)

    told = await error(gateway, "mutation ($id: ID!) { cancel(id: $id) { events } }", id=FED)

    assert told["message"] == "it has ended"
    assert told["extensions"] == {"code": "federation-ended", "status": 409}
