"""The agent against a control plane over real TLS, with a real worker process."""

import hashlib
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from joserfc.jwk import OKPKey
from safetensors.numpy import load, save

from flowerbed.contracts.values import DatasetRef
from flowerbed.runner import agent as agent_module
from flowerbed.runner import bench
from flowerbed.runner.state import StateDir
from flowerbed.runner.status import read_status
from tests.integration.runner.conftest import BASE, AgentThread
from tests.integration.runner.control_plane import CLIENT, FEDERATION, LEASE, ControlPlane, wait_for
from tests.integration.runner.watching import finished_runs

Start = Callable[[], AgentThread]
WORK = f"{FEDERATION}.1.1.train.{CLIENT}"


def test_work_is_claimed_trained_uploaded_and_reported(
    control_plane: ControlPlane,
    reference: DatasetRef,
    start_agent: Start,
    enrolled: StateDir,
    capfd: pytest.CaptureFixture[str],
) -> None:
    control_plane.offer()
    control_plane.orders = [
        control_plane.order(BASE, dataset_sha256=reference.sha256),
        control_plane.order(
            BASE, dataset_sha256=reference.sha256, exchange="evaluate", message_type="evaluate"
        ),
        control_plane.order(BASE, dataset_sha256=reference.sha256, round_number=2, seed=8),
    ]
    agent = start_agent()
    wait_for(lambda: len(control_plane.reports) == 3, "three reports")
    assert control_plane.claims[LEASE]["dataset"] == reference.model_dump()
    (work_id, trained), (_, evaluated), (_, again) = control_plane.reports
    assert work_id == WORK
    assert trained.artifact is not None
    update = control_plane.files[f"/updates/{WORK}"]
    assert trained.artifact.size == len(update)
    assert load(update)["weights"].tolist() == [7, 8, 9, 10]
    assert trained.n_examples == 3
    assert trained.metrics["round"] == 1
    assert "num-examples" not in trained.metrics
    assert (evaluated.artifact, evaluated.n_examples) == (None, 2)
    assert again.metrics["calls"] == 2, "the worker and its context outlive an order"
    assert finished_runs(enrolled) == [1, 1, 1]
    agent.stop()
    status = read_status(enrolled)
    assert status is not None
    assert (status.phase, status.finished) == ("stopping", {"evaluate": 1, "train": 2})
    assert status.last_work is not None
    assert status.last_work.outcome == "reported"
    assert "the app prints to standard output" in capfd.readouterr().err


def test_what_was_measured_is_told_where_it_is_asked_for(
    control_plane: ControlPlane, reference: DatasetRef, start_agent: Start
) -> None:
    control_plane.offer()
    order = partial(control_plane.order, BASE, dataset_sha256=reference.sha256)
    control_plane.orders = [
        order(),
        order(round_number=2, takes_measures=True, config={"tokens": 512}),
        order(round_number=2, takes_measures=True, config={"tokens": 512}, attempt=2),
        order(takes_measures=True, exchange="evaluate", message_type="evaluate"),
    ]
    start_agent()
    wait_for(lambda: len(control_plane.reports) == 4, "four reports")
    unasked, first, again, evaluated = (report.measures for _, report in control_plane.reports)
    assert unasked is None
    assert b'"measures":null' not in control_plane.received
    assert first is not None and again is not None and evaluated is not None
    assert first.n_tokens == again.n_tokens == 512
    assert first.download_seconds is not None and first.upload_seconds is not None
    assert again.download_seconds == first.download_seconds, "from the journal: nothing was loaded"
    assert (evaluated.n_tokens, evaluated.upload_seconds) == (None, None)


def test_what_is_frozen_is_fetched_once_and_only_adapters_come_after(
    control_plane: ControlPlane, reference: DatasetRef, start_agent: Start
) -> None:
    frozen = save({"weights": np.zeros(4, np.float32), "rest": np.ones(9, np.float32)})
    digest = hashlib.sha256(frozen).hexdigest()
    control_plane.files[f"/base/{digest}"] = frozen
    control_plane.offer(update={"form": "delta", "trainable": ["wei*"]})

    def order(number: int, exchange: str = "train") -> str:
        adapter = save({"weights": np.full(4, number, np.float32)})
        return control_plane.order(
            adapter, dataset_sha256=reference.sha256, round_number=number, exchange=exchange,
            message_type=exchange, takes_measures=True,
            frozen={"uri": "s3://flowerbed/frozen", "sha256": digest, "size": len(frozen)},
            frozen_download={"url": f"{control_plane.store.url}/base/{digest}"},
        )  # fmt: skip

    control_plane.orders = [order(2)]
    start_agent()
    wait_for(lambda: len(control_plane.reports) == 1, "the first report")
    assert control_plane.claims[LEASE]["update_form"] == "adapter+delta"
    del control_plane.files[f"/base/{digest}"]
    control_plane.orders = [order(2, "evaluate"), order(3), order(3, "evaluate"), order(4)]
    wait_for(lambda: len(control_plane.reports) == 5, "the other reports")
    assert control_plane.failures == []
    for work_id, report in control_plane.reports:
        update = control_plane.files.get(f"/updates/{work_id}")
        assert report.measures is not None
        if update is not None:
            assert load(update).keys() == {"bits/weights"}
            assert report.measures.form_error == 0


def test_nothing_the_site_keeps_to_itself_is_ever_sent(
    control_plane: ControlPlane, reference: DatasetRef, start_agent: Start, folder: Path
) -> None:
    control_plane.offer()
    control_plane.orders = [
        control_plane.order(BASE, dataset_sha256=reference.sha256),
        control_plane.order(
            BASE, dataset_sha256=reference.sha256, round_number=2, config={"behave": "raise"}
        ),
    ]
    start_agent()
    wait_for(lambda: control_plane.reports and control_plane.failures, "both answers")
    _, failure = control_plane.failures[0]
    assert failure.code == "app-failed"
    assert "ValueError: cannot read" in failure.detail
    assert "tests.integration.runner.tiny.client_app:" in failure.detail
    everything = control_plane.received + b"".join(control_plane.files.values())
    secrets = [str(folder), str(folder.parent), "st-elsewhere", "cardiology", "rows.txt"]
    assert [name for name in secrets if name.encode() in everything] == []


def test_odd_replies_of_an_app(
    control_plane: ControlPlane,
    reference: DatasetRef,
    start_agent: Start,
    caplog: pytest.LogCaptureFixture,
) -> None:
    control_plane.offer()
    sha256 = reference.sha256
    control_plane.orders = [
        control_plane.order(BASE, dataset_sha256=sha256, config={"behave": "nan"}),
        control_plane.order(BASE, dataset_sha256=sha256, config={"behave": "no-examples"}),
    ]
    start_agent()
    wait_for(lambda: control_plane.reports and control_plane.failures, "both answers")
    assert "train-loss" not in control_plane.reports[0][1].metrics
    assert "not reported, no finite number: train-loss" in caplog.text
    assert control_plane.failures[0][1].code == "bad-reply"


def test_limits_hold_over_the_whole_lease(
    control_plane: ControlPlane, reference: DatasetRef, start_agent: Start, enrolled: StateDir
) -> None:
    control_plane.offer(limits={"ttl_seconds": 60, "max_epochs": 3})
    control_plane.orders = [
        control_plane.order(
            BASE, dataset_sha256=reference.sha256, round_number=n, config={"local-epochs": 2}
        )
        for n in (1, 2)
    ]
    start_agent()
    wait_for(lambda: control_plane.failures, "the refusal")
    assert len(control_plane.reports) == 1
    work_id, failure = control_plane.failures[0]
    assert work_id == f"{FEDERATION}.2.1.train.{CLIENT}"
    assert failure.code == "limit-exceeded"
    assert failure.detail == "2 epochs trained, 2 ordered, max_epochs 3"
    assert finished_runs(enrolled) == [1]


def test_dataset_changed_after_the_claim_is_refused(
    control_plane: ControlPlane,
    reference: DatasetRef,
    start_agent: Start,
    folder: Path,
    enrolled: StateDir,
) -> None:
    control_plane.offer()
    start_agent()
    wait_for(lambda: control_plane.claims, "the claim")
    (folder / "rows.txt").write_text("a b d\n")
    control_plane.orders = [control_plane.order(BASE, dataset_sha256=reference.sha256)]
    wait_for(lambda: control_plane.failures, "the refusal")
    assert control_plane.failures[0][1].code == "dataset-changed"
    assert finished_runs(enrolled) == []


def test_refused_orders_name_their_code_and_run_nothing(
    control_plane: ControlPlane, reference: DatasetRef, start_agent: Start, enrolled: StateDir
) -> None:
    control_plane.offer()
    sha256 = reference.sha256
    good = control_plane.order(BASE, dataset_sha256=sha256)
    base = {"uri": "s3://flowerbed/base", "sha256": "0" * 64, "size": len(BASE)}
    control_plane.orders = [
        good[:-8] + ("AAAAAAAA" if not good.endswith("AAAAAAAA") else "BBBBBBBB"),
        control_plane.order(BASE, dataset_sha256=sha256, round_number=2, lease_epoch=9),
        control_plane.order(BASE, dataset_sha256=sha256, round_number=3, exp=1),
        control_plane.order(BASE, dataset_sha256=sha256, round_number=4, code_hash="0" * 64),
        control_plane.order(BASE, dataset_sha256=sha256, round_number=5, base=base),
    ]
    start_agent()
    wait_for(lambda: len(control_plane.failures) == 5, "five refusals")
    codes = [failure.code for _, failure in control_plane.failures]
    assert codes == ["signature", "lease-mismatch", "expired", "code-hash", "base-hash-mismatch"]
    assert (control_plane.reports, finished_runs(enrolled)) == ([], [])


def test_manifest_for_another_dataset_is_not_claimed(
    control_plane: ControlPlane, start_agent: Start, enrolled: StateDir
) -> None:
    control_plane.offer(dataset_hashes=["0" * 64])
    agent = start_agent()
    status = wait_for(lambda: (s := read_status(enrolled)) and s.last_error and s, "the refusal")
    assert "dataset-not-admitted" in status.last_error.message
    polls = control_plane.polls
    assert control_plane.claims == {}
    agent.stop()
    assert control_plane.polls <= polls + 1, "a refused offer is not asked for again at once"


def test_key_published_later_is_fetched_once(
    control_plane: ControlPlane, start_agent: Start, enrolled: StateDir
) -> None:
    start_agent()
    wait_for(lambda: control_plane.polls, "the first poll")
    control_plane.signing_key = OKPKey.generate_key("Ed25519", {"kid": "key-2"})
    control_plane.published.append(control_plane.signing_key)
    control_plane.offer()
    wait_for(lambda: control_plane.claims, "the claim")
    assert control_plane.received.count(b"GET https://127.0.0.1") == 2, "the CA, then the keys"
    assert "key-2" in enrolled.identity.read_text()


def test_door_that_goes_away_is_found_again(
    control_plane: ControlPlane, reference: DatasetRef, start_agent: Start
) -> None:
    control_plane.offer()
    start_agent()
    wait_for(lambda: control_plane.claims, "the claim")
    control_plane.client_door.stop()
    control_plane.orders = [control_plane.order(BASE, dataset_sha256=reference.sha256)]
    control_plane.fail_next("/report", 503, retry_after="1")
    control_plane.client_door.start()
    wait_for(lambda: control_plane.reports, "the report")


def test_stop_with_release_gives_the_lease_back(
    control_plane: ControlPlane, start_agent: Start, enrolled: StateDir
) -> None:
    control_plane.offer()
    agent = start_agent()
    # The door hears of the claim before the agent hears that it holds the lease.
    wait_for(lambda: (s := read_status(enrolled)) and s.leases, "the lease is held")
    agent.stop(release=True)
    assert control_plane.released == [LEASE]


def test_client_that_is_not_admitted_asks_again_later(
    control_plane: ControlPlane,
    start_agent: Start,
    enrolled: StateDir,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(agent_module, "NOT_ADMITTED_PAUSE", 0.2)
    control_plane.fail_next("/v1/leases/poll", 403)
    start_agent()
    status = wait_for(lambda: (s := read_status(enrolled)) and s.phase == "polling" and s, "a poll")
    assert "as the test says" in status.last_error.message


def test_report_that_is_refused_ends_that_work_only(
    control_plane: ControlPlane, reference: DatasetRef, start_agent: Start, enrolled: StateDir
) -> None:
    control_plane.offer()
    control_plane.fail_next("/report", 409)
    control_plane.orders = [control_plane.order(BASE, dataset_sha256=reference.sha256)]
    start_agent()
    wait_for(lambda: control_plane.reports, "the report of the order that came again")
    assert "report was refused" in (enrolled.status.read_text())
    assert finished_runs(enrolled) == [1]


def test_order_past_its_deadline_is_given_up(
    control_plane: ControlPlane,
    reference: DatasetRef,
    start_agent: Start,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(bench, "LEEWAY_SECONDS", 0)
    block = tmp_path / "block"
    block.touch()
    control_plane.offer()
    start_agent()
    wait_for(lambda: control_plane.claims, "the claim")
    config = {"behave": "block", "block": str(block)}
    control_plane.orders = [
        control_plane.order(
            BASE, dataset_sha256=reference.sha256, config=config, exp=int(time.time()) + 3
        )
    ]
    wait_for(lambda: control_plane.failures, "the failure")
    assert control_plane.failures[0][1].code == "deadline-passed"


def test_a_site_without_supernodes_says_so_and_claims_nothing(
    control_plane: ControlPlane, reference: DatasetRef, start_agent: Start
) -> None:
    control_plane.offer(runtime="superlink")
    start_agent()
    ((code, detail),) = wait_for(lambda: control_plane.declines, "a decline")
    assert (code, "--superlink" in detail) == ("no-supernode", True)
    assert control_plane.claims == {}
