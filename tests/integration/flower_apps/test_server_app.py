"""The server half, driven by Flower's own strategy loop over clients in this process."""

from collections.abc import Iterable
from copy import deepcopy
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from flwr.app import Context, Message, RecordDict
from flwr.serverapp import Grid, ServerApp
from flwr.supercore.task_identity import TaskIdentity
from safetensors.numpy import load_file

from flowerbed.flower_apps.registry import BUILTIN, find, load, load_client_app
from scripts.prepare_data import prepare


class InProcessGrid:
    """As much of a Grid as a strategy asks for; every node is a call of the ClientApp."""

    def __init__(self, app: str, folders: list[Path]) -> None:
        self.client = load_client_app(app)
        self.folders = dict(enumerate(folders, start=1))
        self.seeds: list[object] = []

    def get_node_ids(self) -> list[int]:
        return list(self.folders)

    def get_nodes(self) -> list[Any]:
        return []

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> list[Message]:
        # As over a wire: what a client does to its message happens to no other's.
        return [self._deliver(deepcopy(message)) for message in messages]

    def _deliver(self, message: Message) -> Message:
        node = message.metadata.dst_node_id
        if message.metadata.message_type == "train":
            self.seeds.append(message.content.config_records["config"]["seed"])
        context = Context(
            run_id=1,
            node_id=node,
            node_config={"data-path": str(self.folders[node]), "partition-id": node},
            state=RecordDict(),
            run_config={},
        )
        return self.client(message, context)


def serve(app: str, grid: InProcessGrid, saved: Path, **changed: Any) -> dict[str, Any]:
    """Run the ServerApp; the config that it had."""
    TaskIdentity.run_id, TaskIdentity.task_id, TaskIdentity.node_id = 1, 1, 1
    config = {
        **find(app).default_config(),
        "num-server-rounds": 2,
        "local-epochs": 1,
        "final-model": str(saved),
        **changed,
    }
    context = Context(run_id=1, node_id=1, node_config={}, state=RecordDict(), run_config=config)
    server: ServerApp = load(BUILTIN[app].server_app)
    server(cast(Grid, grid), context)
    return config


@pytest.mark.parametrize("app", ["hospital", "vision"])
def test_server_app_trains_the_sites_and_saves_the_model(app: str, tmp_path: Path) -> None:
    described = prepare(app, tmp_path, 7, n_rows=200, fashion_mnist=Path("no Fashion-MNIST here"))
    grid = InProcessGrid(app, [tmp_path / site["name"] for site in described["sites"]])
    config = serve(app, grid, tmp_path / "final.pt")
    start = load(BUILTIN[app].initial_arrays)(config).to_torch_state_dict()
    trained = torch.load(tmp_path / "final.pt", weights_only=True)
    assert set(trained) == set(start)
    assert all(not torch.equal(trained[name], start[name]) for name in start)
    assert grid.seeds == [8] * 4 + [9] * 4


def test_synthetic_runs_on_flowers_own_loop_without_data(tmp_path: Path) -> None:
    grid = InProcessGrid("synthetic", [tmp_path] * 4)
    saved = tmp_path / "final.safetensors"
    config = serve("synthetic", grid, saved, elements=1000, tensors=3)
    start = load(BUILTIN["synthetic"].initial_arrays)(config)
    trained = load_file(saved)
    assert set(trained) == set(start)
    assert all((trained[name] != array.numpy()).any() for name, array in start.items())
    assert grid.seeds == [8] * 4 + [9] * 4
