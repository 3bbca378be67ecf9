"""What the command line asks the gateway, and what a person sees of the answer."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from flowerbed.cli import api, dead_letters, federation, invites
from tests.unit.cli.federation_views import AT, FED, a_federation, completed
from tests.unit.cli.gateway_stub import StubGateway, run, stub_gateway

SPEC = """
apiVersion: flowerbed/v1
metadata: {name: demo, tenant: acme}
spec:
  app: builtin:hospital
  model_ref: {uri: builtin:hospital}
  num_rounds: 2
"""
CLIENT = typer.Typer()
invites.register(CLIENT)


@pytest.fixture
def stub() -> Iterator[StubGateway]:
    with stub_gateway() as gateway:
        yield gateway


@pytest.fixture
def spec_file(tmp_path: Path) -> Path:
    path = tmp_path / "spec.yaml"
    path.write_text(SPEC)
    return path


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)


# --- offline ----------------------------------------------------------------


def test_a_spec_is_validated_without_a_stack(spec_file: Path) -> None:
    found = run(federation.app, "validate", str(spec_file))
    assert (found.exit_code, found.stdout) == (0, "the spec is valid\n")


def test_every_broken_rule_is_shown_with_exit_code_2(spec_file: Path) -> None:
    spec_file.write_text(SPEC.replace("num_rounds: 2", "num_rounds: 0\n  colour: red"))

    found = run(federation.app, "validate", str(spec_file))
    as_json = run(federation.app, "validate", str(spec_file), "--output", "json")

    assert found.exit_code == as_json.exit_code == 2
    assert "spec.num_rounds" in found.stderr and "no such key" in found.stderr
    problems = json.loads(as_json.stdout)["problems"]
    assert [problem["path"] for problem in problems] == ["spec.num_rounds", "spec.colour"]


def test_what_is_no_yaml_is_said_with_its_place(tmp_path: Path) -> None:
    found = run(federation.app, "validate", "-", text="a: 1\na: 2")
    assert found.exit_code == 2
    assert "line 2, column 1: the key 'a' is given twice" in found.stderr
    missing = run(federation.app, "validate", str(tmp_path / "none.yaml"))
    assert missing.exit_code == 2 and "No such file" in missing.stderr


@pytest.mark.parametrize(
    "arguments",
    [("submit",), ("show",), ("list", "--limit", "0"), ("list", "--output", "xml"), ("explode",)],
)
def test_wrong_arguments_are_bad_input(arguments: tuple[str, ...]) -> None:
    assert run(federation.app, *arguments).exit_code == 2


@pytest.mark.parametrize(
    ("environment", "arguments", "message", "exit_code"),
    [
        ({}, ("--state-dir", "{tmp}"), "no stack was ever started", 3),
        ({"FLOWERBED_URL": "gopher://x"}, (), "no http:// address", 2),
        ({"FLOWERBED_URL": "http://127.0.0.1:1"}, (), "needs its token", 2),
        (
            {"FLOWERBED_URL": "http://127.0.0.1:1"},
            ("--token-file", "{tmp}/none"),
            "No such file",
            2,
        ),
        (
            {"FLOWERBED_URL": "http://127.0.0.1:1", "FLOWERBED_TOKEN": "t"},
            (),
            "does not answer",
            3,
        ),
    ],
)
def test_a_gateway_that_cannot_be_found_is_said_in_one_line(
    environment: dict[str, str],
    arguments: tuple[str, ...],
    message: str,
    exit_code: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from typer.testing import CliRunner

    for name in ("FLOWERBED_URL", "FLOWERBED_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    given = [argument.replace("{tmp}", str(tmp_path)) for argument in arguments]

    found = CliRunner().invoke(federation.app, ["list", *given], env=environment)

    assert found.exit_code == exit_code
    assert message in found.stderr and found.stderr.count("\n") == 1
    assert "Traceback" not in found.stderr


# --- federations ------------------------------------------------------------


def test_submit_prints_the_id_alone_and_sends_a_key(stub: StubGateway, spec_file: Path) -> None:
    submitted = {"federation_id": FED, "submission_id": "s", "status_url": f"/federations/{FED}"}
    stub.answer("POST /federations", submitted, 202)

    found = run(federation.app, "submit", str(spec_file), url=stub.url)
    named = run(federation.app, "submit", str(spec_file), "--key", "k1", url=stub.url)
    as_json = run(federation.app, "submit", str(spec_file), "-o", "json", url=stub.url)

    assert (found.exit_code, found.stdout) == (0, f"{FED}\n")
    assert f"federation watch {FED}" in found.stderr
    keys = [headers["idempotency-key"] for headers in stub.headers]
    assert named.exit_code == 0 and keys[1] == "k1" and len(keys[0]) == 36
    assert stub.asked[0][2] == SPEC.encode()
    assert stub.headers[0]["authorization"] == "Bearer secret"
    assert json.loads(as_json.stdout) == submitted


def test_submit_is_tried_again_with_the_same_key(stub: StubGateway, spec_file: Path) -> None:
    stub.answer("POST /federations", {"detail": "nats is away"}, 503)
    stub.answer("POST /federations", {"federation_id": FED}, 202)

    found = run(federation.app, "submit", str(spec_file), url=stub.url)

    assert found.exit_code == 0
    keys = {headers["idempotency-key"] for headers in stub.headers}
    assert len(stub.headers) == 2 and len(keys) == 1


def test_a_refused_spec_lists_its_problems(stub: StubGateway, spec_file: Path) -> None:
    problem = {
        "status": 422, "code": "spec-refused", "detail": "1 rule is broken",
        "errors": [{"path": "spec.num_rounds", "value": "0", "allowed": "at least 1"}],
    }  # fmt: skip
    stub.answer("POST /federations", problem, 422)

    found = run(federation.app, "submit", str(spec_file), url=stub.url)
    as_json = run(federation.app, "submit", str(spec_file), "-o", "json", url=stub.url)

    assert found.exit_code == as_json.exit_code == 2
    assert "spec.num_rounds" in found.stderr and "1 rule is broken" in found.stderr
    assert found.stdout == as_json.stdout == ""
    assert json.loads(as_json.stderr) == problem


def test_submit_and_watch_ends_as_the_federation_ends(stub: StubGateway, spec_file: Path) -> None:
    stub.answer("POST /federations", {"federation_id": FED}, 202)
    stub.answer(f"GET /federations/{FED}", a_federation())
    stub.answer(f"GET /federations/{FED}", completed())

    found = run(federation.app, "submit", str(spec_file), "--watch", url=stub.url)

    assert found.exit_code == 0
    assert "round 2 completed" in found.stdout and "completed: s3://" in found.stdout


def test_watching_one_that_fails_is_exit_code_1(stub: StubGateway) -> None:
    failed = a_federation("failed", code="round-failed", reason="round 1: below quorum")
    stub.answer(f"GET /federations/{FED}", failed)

    found = run(federation.app, "watch", FED, url=stub.url)
    as_json = run(federation.app, "watch", FED, "-o", "json", url=stub.url)

    assert found.exit_code == as_json.exit_code == 1
    assert "failed: round 1: below quorum" in found.stdout
    assert json.loads(as_json.stdout) == failed


def test_watching_an_unknown_federation_is_bad_input(stub: StubGateway) -> None:
    found = run(federation.app, "watch", "fed-x", url=stub.url)
    assert found.exit_code == 2 and "no GET /federations/fed-x" in found.stderr


def test_federations_are_listed(stub: StubGateway) -> None:
    stub.answer("GET /federations", {"federations": [a_federation()], "next_cursor": None})

    found = run(federation.app, "list", "--tenant", "acme", "--status", "running", url=stub.url)
    as_json = run(federation.app, "list", "-o", "json", url=stub.url)

    assert FED in found.stdout and "0/2" in found.stdout
    assert stub.asked[0][1] == "/federations?tenant=acme&status=running&limit=50"
    assert json.loads(as_json.stdout)[0]["federation_id"] == FED


def test_a_watched_list_is_told_again_when_it_changes(stub: StubGateway) -> None:
    page = {"federations": [a_federation()], "next_cursor": None}
    ended = {"federations": [completed()], "next_cursor": None}
    for body, status in (
        (page, 200), (page, 200), ({"detail": "away"}, 503), ({"detail": "away"}, 503),
        (ended, 200), ({"detail": "enough"}, 401),
    ):  # fmt: skip
        stub.answer("GET /federations", body, status)

    found = run(federation.app, "list", "--watch", url=stub.url)

    assert found.exit_code == 1 and "enough" in found.stderr
    rows = [line for line in found.stdout.splitlines() if line.startswith(FED)]
    assert ["running" in rows[0], "completed" in rows[1], len(rows)] == [True, True, 2]
    assert found.stderr.count("waiting: ") == 1


def test_showing_and_watching_is_watching(stub: StubGateway) -> None:
    stub.answer(f"GET /federations/{FED}", a_federation())
    stub.answer(f"GET /federations/{FED}", completed())
    found = run(federation.app, "show", FED, "--watch", url=stub.url)
    assert found.exit_code == 0 and "completed: s3://" in found.stdout


def test_a_federation_is_shown_with_its_rounds(stub: StubGateway) -> None:
    stub.answer(f"GET /federations/{FED}", completed())
    found = run(federation.app, "show", FED, url=stub.url)
    assert found.exit_code == 0
    for text in ("2 of 2 rounds", "accuracy", "0.7500", "final checkpoint s3://", "1 min 30 s"):
        assert text in found.stdout, text


def test_a_rejected_federation_shows_why(stub: StubGateway) -> None:
    problems = [{"path": "spec.app", "value": "'x'", "allowed": "builtin:hospital"}]
    rejected = a_federation("rejected", reason="1 broken rule", problems=problems, started_at=None)
    stub.answer(f"GET /federations/{FED}", rejected)
    found = run(federation.app, "show", FED, url=stub.url)
    assert "1 broken rule" in found.stdout and "spec.app" in found.stderr


def test_history_is_fetched_to_its_end(stub: StubGateway) -> None:
    event = {
        "position": 7, "recorded_at": AT, "type": "fl.federation.created",
        "stream": f"federation-{FED}", "version": 1,
    }  # fmt: skip
    path = f"GET /federations/{FED}/events"
    stub.answer(path, {"events": [event], "next_after": 7})
    stub.answer(path, {"events": [], "next_after": 7})

    found = run(federation.app, "events", FED, url=stub.url)

    assert f"federation-{FED}@1" in found.stdout
    assert [one[1].partition("?")[2] for one in stub.asked] == [
        "after=0&limit=1000",
        "after=7&limit=1000",
    ]


@pytest.mark.parametrize(
    ("verb", "reason"), [("pause", "lunch"), ("resume", ""), ("cancel", "enough")]
)
def test_a_command_is_posted_and_confirmed(stub: StubGateway, verb: str, reason: str) -> None:
    stub.answer(f"POST /federations/{FED}/{verb}", {})
    more = ("--reason", reason) if reason else ()

    found = run(federation.app, verb, FED, *more, url=stub.url)

    assert found.exit_code == 0 and found.stdout.startswith(f"{FED} ")
    assert stub.asked == [("POST", f"/federations/{FED}/{verb}", {"reason": reason})]


def test_a_refused_command_is_exit_code_1(stub: StubGateway) -> None:
    stub.answer(f"POST /federations/{FED}/pause", {"detail": "it has ended"}, 409)
    found = run(federation.app, "pause", FED, url=stub.url)
    assert found.exit_code == 1 and "it has ended" in found.stderr


def test_an_answer_that_is_no_problem_is_reported_too(stub: StubGateway) -> None:
    stub.answer(f"GET /federations/{FED}", b"<html>", 500)
    found = run(federation.app, "show", FED, url=stub.url)
    assert found.exit_code == 1 and "the gateway answered 500" in found.stderr


# --- clients ----------------------------------------------------------------


def test_an_invite_prints_the_key_alone(stub: StubGateway) -> None:
    made = {"invite": "fbi_abc", "client_id": "client-a", "expires_at": AT}
    stub.answer("POST /clients/invites", made)

    found = run(
        CLIENT, "invite", "--tenant", "acme", "--tags", "eu, gpu", "--ttl", "7d", url=stub.url
    )
    as_json = run(CLIENT, "invite", "--output", "json", url=stub.url)

    assert (found.exit_code, found.stdout) == (0, "fbi_abc\n")
    assert stub.asked[0][2] == {"tenant": "acme", "tags": ["eu", "gpu"], "ttl_seconds": 604_800}
    assert json.loads(as_json.stdout) == made


@pytest.mark.parametrize(
    ("text", "expected"), [("90", 90), ("90s", 90), ("30m", 1800), ("24h", 86_400), ("7d", 604_800)]
)
def test_durations_have_units(text: str, expected: int) -> None:
    assert invites.seconds(text) == expected


@pytest.mark.parametrize("text", ["", "h", "1.5h", "-1h", "2w", "1h30m"])
def test_other_durations_are_bad_input(text: str, stub: StubGateway) -> None:
    found = run(CLIENT, "invite", f"--ttl={text}", url=stub.url)
    assert found.exit_code == 2 and stub.asked == []


def test_clients_are_listed_over_all_pages(stub: StubGateway) -> None:
    client = {
        "client_id": "client-a", "tenant": "acme", "status": "enrolled", "tags": ["eu"],
        "n_federations": 2, "enrolled_at": AT, "certificate_expires_at": None,
    }  # fmt: skip
    stub.answer("GET /clients", {"clients": [client], "next_cursor": "c"})
    stub.answer(
        "GET /clients", {"clients": [client | {"client_id": "client-b"}], "next_cursor": None}
    )

    found = run(CLIENT, "list", url=stub.url)

    assert "client-a" in found.stdout and "client-b" in found.stdout
    assert "cursor=c" in stub.asked[1][1]


def test_a_client_is_revoked(stub: StubGateway) -> None:
    stub.answer("POST /clients/client-a/revoke", {})
    found = run(CLIENT, "revoke", "client-a", "--reason", "sold", url=stub.url)
    assert found.exit_code == 0
    assert stub.asked == [("POST", "/clients/client-a/revoke", {"reason": "sold"})]


# --- dead letters -----------------------------------------------------------

LETTER = {
    "service": "lease", "consumer": "lease", "lane": FED, "stream": "s", "version": 3,
    "parked_at": AT, "error": "boom",
}  # fmt: skip


@pytest.mark.parametrize(
    ("letters", "unavailable", "shown", "exit_code"),
    [
        ([], [], "no dead letters", 0),
        ([LETTER], [], "boom", 0),
        ([LETTER], ["artifact"], "boom", 1),
    ],
)
def test_dead_letters_are_listed(
    stub: StubGateway, letters: Any, unavailable: list[str], shown: str, exit_code: int
) -> None:
    stub.answer("GET /dead-letters", {"dead_letters": letters, "unavailable": unavailable})
    found = run(dead_letters.app, "list", url=stub.url)
    assert found.exit_code == exit_code and shown in found.stdout


@pytest.mark.parametrize(("error", "exit_code"), [("", 0), ("boom", 1)])
def test_a_replay_tells_what_was_handled(stub: StubGateway, error: str, exit_code: int) -> None:
    lane = {"service": "lease", "consumer": "lease", "lane": FED, "replayed": 2, "error": error}
    stub.answer("POST /dead-letters/replay", {"lanes": [lane], "unavailable": []})

    found = run(dead_letters.app, "replay", "--service", "lease", url=stub.url)

    assert found.exit_code == exit_code
    assert f"lease lease {FED}: 2 handled" in found.stdout
    assert stub.asked[0][2] == {"service": "lease"}


def test_dead_letters_in_json_and_an_empty_replay(stub: StubGateway) -> None:
    stub.answer("GET /dead-letters", {"dead_letters": [LETTER], "unavailable": []})
    stub.answer("POST /dead-letters/replay", {"lanes": [], "unavailable": []})
    listed = run(dead_letters.app, "list", "-o", "json", url=stub.url)
    replayed = run(dead_letters.app, "replay", url=stub.url)
    as_json = run(dead_letters.app, "replay", "-o", "json", url=stub.url)
    assert json.loads(listed.stdout)["dead_letters"] == [LETTER]
    assert replayed.stdout == "no dead letters\n"
    assert json.loads(as_json.stdout)["lanes"] == []


def test_the_token_is_read_from_a_file(stub: StubGateway, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("from-file\n")
    connection = api.connect(stub.url, token, None)
    stub.answer("GET /x", {})
    assert connection.get("/x") == {}
    connection.close()
    assert stub.headers[0]["authorization"] == "Bearer from-file"
