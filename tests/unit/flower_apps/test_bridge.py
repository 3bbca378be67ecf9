"""The module around an app over a SuperLink: the app sees what it would see over the bus."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.supercore.task_identity import TaskIdentity

from flowerbed.contracts import run_bundle
from flowerbed.flower_apps import bridge
from flowerbed.flower_apps.bridge import AppFailed, Bridged
from flowerbed.runner import node_work

APP = """
import random
from flwr.app import Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()


@app.train()
def train(message, context):
    seen = context.state.setdefault("seen", MetricRecord({"messages": 0}))
    seen["messages"] += 1
    if "fails" in message.content["config"]:
        open("/srv/rows/patient-17.csv")
    assert set(context.node_config) == {"data-path"}
    told = {"label-entropy": 0.5, "names": len(context.run_config), "luck": random.random()}
    assert set(context.run_config) == {"lr"}, context.run_config
    assert context.node_config["data-path"] == "/srv/rows"
    return Message(RecordDict({"metrics": MetricRecord({**told, **seen})}), reply_to=message)
"""


@pytest.fixture
def context(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Context]:
    TaskIdentity.run_id, TaskIdentity.task_id, TaskIdentity.node_id = 1, 1, 1
    (tmp_path / "drift_app.py").write_text(APP)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield Context(
        run_id=1,
        node_id=2,
        node_config={"data-path": "/srv/rows"},
        state=RecordDict(),
        run_config={
            "lr": 0.5,
            run_bundle.CLIENT_APP: "drift_app:app",
            run_bundle.LOCAL_EPOCHS: 2,
            run_bundle.FEDERATION: "fed-1",
        },
    )
    sys.modules.pop("drift_app", None)


def order(**config: Any) -> Message:
    content = RecordDict({"config": ConfigRecord({"seed": 7, **config})})
    return Message(content, dst_node_id=2, message_type="train")


def metrics(reply: Message) -> MetricRecord:
    return reply.content.metric_records["metrics"]


def test_the_app_sees_its_own_config_and_remembers(context: Context) -> None:
    told = dict(context.run_config)
    for number in (1, 2, 3):
        assert metrics(Bridged()(order(), context))["messages"] == number
    assert context.run_config == told, "the next message finds what this one found"


def test_the_order_seeds_it(context: Context) -> None:
    lucks = []
    for seed in (7, 7, 8):
        np.random.standard_normal(3)
        lucks.append(metrics(Bridged()(order(seed=seed), context))["luck"])
    assert lucks[0] == lucks[1] != lucks[2]


@pytest.mark.parametrize("name", ["local-epochs", "local_epochs"])
@pytest.mark.parametrize("ordered", [3, 2.5, "many"])
def test_more_epochs_than_the_lease_says_are_refused_before_the_app_is_loaded(
    context: Context, name: str, ordered: object
) -> None:
    with pytest.raises(PermissionError, match="local epochs are ordered, the lease says 2"):
        Bridged()(order(**{name: ordered}), context)
    assert "drift_app" not in sys.modules
    assert metrics(Bridged()(order(**{name: 2}), context))["messages"] == 1


def test_what_a_site_keeps_to_itself_is_taken_out_of_the_answer(context: Context) -> None:
    assert metrics(Bridged()(order(), context))["label-entropy"] == 0.5
    context.node_config[bridge.LABEL_ENTROPY] = False
    assert "label-entropy" not in metrics(Bridged()(order(), context))


def test_an_error_keeps_the_sites_paths_at_the_site(context: Context) -> None:
    with pytest.raises(AppFailed) as failed:
        Bridged()(order(fails=True), context)
    words = "FileNotFoundError: [Errno 2] No such file or directory: '(path)'"
    assert str(failed.value) == words


def test_it_spells_the_entries_as_who_makes_the_bundle_does() -> None:
    assert (bridge.RESERVED, bridge.CLIENT_APP, bridge.LOCAL_EPOCHS) == (
        run_bundle.RESERVED, run_bundle.CLIENT_APP, run_bundle.LOCAL_EPOCHS,
    )  # fmt: skip
    assert bridge.LABEL_ENTROPY == node_work.LABEL_ENTROPY
