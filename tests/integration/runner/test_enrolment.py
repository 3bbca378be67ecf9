"""Enrolment and renewal over real TLS."""

import stat
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import httpx
import pytest

from flowerbed.contracts.door import Invite
from flowerbed.runner import clock, renewal
from flowerbed.runner import enrol as enrolment
from flowerbed.runner.enrol import enrol, ensure_enrolled
from flowerbed.runner.errors import BadInput, NotReachable
from flowerbed.runner.identity import IdentityStore
from flowerbed.runner.state import StateDir
from tests.integration.runner.conftest import AgentThread
from tests.integration.runner.control_plane import CLIENT, TENANT, ControlPlane, wait_for

Start = Callable[[], AgentThread]


class Killed(BaseException):
    """The process is gone."""


def test_enrolled_client_has_its_own_key_and_speaks_mtls(
    control_plane: ControlPlane, state: StateDir
) -> None:
    identity = enrol(control_plane.invite(), state)
    assert (identity.client_id, identity.tenant) == (CLIENT, TENANT)
    assert IdentityStore(state).load() == identity
    assert stat.S_IMODE(state.client_pem.stat().st_mode) == 0o600
    assert stat.S_IMODE(state.root.stat().st_mode) == 0o700
    assert list(state.root.glob("enrolling-*")) == []
    context = IdentityStore(state).client_context(identity)
    with httpx.Client(verify=context) as http:
        assert http.get(f"{identity.client_url}/.well-known/jwks.json").json() == identity.jwks
    with pytest.raises(httpx.TransportError), httpx.Client(verify=False) as stranger:
        stranger.get(f"{identity.client_url}/.well-known/jwks.json")


@pytest.mark.parametrize(
    ("owner", "step"),
    [
        (enrolment, "_request"),
        (enrolment, "_check"),
        (IdentityStore, "save_certificate"),
        (IdentityStore, "save"),
    ],
)
def test_enrolment_killed_before_any_step_goes_on_with_the_same_key(
    owner: object,
    step: str,
    control_plane: ControlPlane,
    state: StateDir,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def killed(*_: object, **__: object) -> None:
        raise Killed

    invite = control_plane.invite()
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(owner, step, killed)
        enrol(invite, state)
    assert IdentityStore(state).load() is None, "not enrolled until it is all there"
    identity = ensure_enrolled(state, invite)
    assert identity.client_id == CLIENT
    assert len(set(control_plane.used.values())) == 1


def test_enrolled_client_needs_no_invite_and_takes_none_for_another(
    control_plane: ControlPlane, state: StateDir
) -> None:
    identity = enrol(control_plane.invite(), state)
    assert ensure_enrolled(state) == identity
    assert ensure_enrolled(state, control_plane.invite()) == identity
    assert len(control_plane.used) == 1, "an invite that is not needed stays unused"
    with pytest.raises(BadInput, match="enrolled as 'site-a', the invite is for 'site-b'"):
        ensure_enrolled(state, control_plane.invite(client_id="site-b"))


def test_client_without_identity_needs_an_invite(state: StateDir) -> None:
    with pytest.raises(BadInput, match="not enrolled: start it with --invite KEY"):
        ensure_enrolled(state)


def test_expired_identity_takes_a_new_invite(control_plane: ControlPlane, state: StateDir) -> None:
    control_plane.certificate_ttl = timedelta(seconds=-1)
    enrol(control_plane.invite(), state)
    with pytest.raises(BadInput, match=r"ran out at .*: start it with a new --invite KEY"):
        ensure_enrolled(state)
    control_plane.certificate_ttl = timedelta(hours=1)
    ensure_enrolled(state, control_plane.invite())
    assert ensure_enrolled(state).client_id == CLIENT


@pytest.mark.parametrize("wrong", [3600, -3600])
def test_certificate_is_as_old_as_the_control_plane_says(
    wrong: int,
    control_plane: ControlPlane,
    state: StateDir,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "skew").write_text(str(wrong))
    monkeypatch.setenv(clock.OFFSET_FILE_VARIABLE, str(tmp_path / "skew"))
    ours = clock.Clock()
    monkeypatch.setattr(clock, "now", ours.now)
    monkeypatch.setattr(clock, "learn", ours.learn)
    control_plane.certificate_ttl = timedelta(hours=1)
    enrol(control_plane.invite(), state)
    received_at = IdentityStore(state).received_at()
    assert abs(received_at.timestamp() - time.time()) < 60, "else it would be renewed too late"


def test_authority_that_the_invite_does_not_name_is_not_trusted(
    control_plane: ControlPlane, state: StateDir
) -> None:
    with pytest.raises(
        BadInput, match=r"the CA of https://.* is [0-9a-f]{64}, the invite names 00"
    ):
        enrol(control_plane.invite(ca_sha256="00" * 32), state)
    assert control_plane.used == {}, "the secret is not told to a stranger"


def test_refusals_of_the_door_are_readable(control_plane: ControlPlane, state: StateDir) -> None:
    used = control_plane.invite()
    enrol(used, state)
    with pytest.raises(BadInput, match="enrolment refused: the invite was used with another key"):
        enrol(used, StateDir.at(state.root / "other"))
    unknown = Invite.decode(used).model_copy(update={"secret": "guessed"}).encode()
    with pytest.raises(BadInput, match="enrolment refused: no such invite"):
        enrol(unknown, state)
    with pytest.raises(BadInput, match="an invite key begins with fbi_"):
        enrol("nonsense", state)
    with pytest.raises(BadInput, match="damaged"):
        enrol(used[:-9], state)
    with pytest.raises(BadInput, match="must begin with https://"):
        enrol(used, state, "http://127.0.0.1:1")
    control_plane.fail_next("/v1/enrol", 503)
    with pytest.raises(NotReachable, match="answered 503"):
        enrol(used, state)
    control_plane.enrol_door.stop()
    with pytest.raises(NotReachable, match="did not answer"):
        enrol(used, state)


def test_certificate_renews_itself_with_a_new_key(
    control_plane: ControlPlane,
    state: StateDir,
    start_agent: Start,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(renewal, "RENEW_AFTER", 0.5 / 86400)
    monkeypatch.setattr(renewal, "JITTER", 0.0)
    store = IdentityStore(state)
    first = store.certificate()
    start_agent()
    wait_for(lambda: store.certificate() != first, "the renewal")
    second = store.certificate()
    assert second.public_key() != first.public_key()
    control_plane.offer()
    wait_for(lambda: control_plane.claims, "the claim")
    assert first.serial_number in control_plane.peers
    assert control_plane.peers[-1] != first.serial_number
    assert len(set(control_plane.renewed)) == len(control_plane.renewed)


def test_agent_whose_certificate_ran_out_says_so_and_ends(
    control_plane: ControlPlane, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(renewal, "RENEW_AFTER", 0.0)
    control_plane.certificate_ttl = timedelta(seconds=4)
    start_agent: Start = request.getfixturevalue("start_agent")
    for _ in range(100):
        control_plane.fail_next("/v1/certificate", 503)
    agent = start_agent()
    assert "a new invite is needed" in str(wait_for(lambda: agent.error, "the end"))
