"""A virtual client's part of the data: a site's folder, or a number."""

from pathlib import Path

import pytest

from flowerbed.aggregator.simulation.errors import CannotSimulate
from flowerbed.aggregator.simulation.partitions import partitions
from flowerbed.contracts.simulation import Simulation
from flowerbed.runner.dataset import Dataset

OWN = "fab:" + "a" * 64


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for name in ("b", "a", ".hidden"):
        (tmp_path / name / "deep").mkdir(parents=True)
        (tmp_path / name / "dataset.json").write_text('{"task": "hospital"}')
        (tmp_path / name / "deep" / "rows").write_text(name)
    (tmp_path / "sites.json").write_text("{}")
    return tmp_path


def test_folders_are_dealt_out_by_name_and_again_from_the_first(data: Path) -> None:
    found = partitions(Simulation(clients=3, data=str(data)), "builtin:hospital")
    assert [one.folder for one in found] == [data / "a", data / "b", data / "a"]
    assert [one.client_id for one in found] == ["sim-00000", "sim-00001", "sim-00002"]
    assert found[2].node_config == {
        "partition-id": 2, "num-partitions": 3, "data-path": str(data / "a"),
    }  # fmt: skip
    assert len({one.node_id for one in found}) == 3


def test_a_folder_is_named_as_its_site_would_name_it(data: Path) -> None:
    first, _ = partitions(Simulation(clients=2, data=str(data)), "builtin:hospital")
    assert first.dataset == Dataset.open(f"local:{data / 'a'}").reference()


def test_without_data_each_client_is_a_partition_of_its_own_the_same_each_time() -> None:
    one, again = (partitions(Simulation(clients=50), OWN) for _ in range(2))
    assert one == again
    assert len({part.dataset.sha256 for part in one}) == 50
    assert one[7].node_config == {"partition-id": 7, "num-partitions": 50}
    assert partitions(Simulation(clients=51), OWN)[7].dataset != one[7].dataset


@pytest.mark.parametrize("app", ["builtin:hospital", "builtin:vision"])
def test_an_app_that_reads_a_dataset_needs_one(app: str) -> None:
    with pytest.raises(CannotSimulate, match=r"simulation\.data") as raised:
        partitions(Simulation(clients=2), app)
    assert raised.value.code == "dataset-gone"


def test_folders_that_are_not_there_or_hold_nothing_are_told(tmp_path: Path) -> None:
    for data in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(CannotSimulate) as raised:
            partitions(Simulation(clients=2, data=str(data)), OWN)
        assert raised.value.code == "dataset-gone"
    (tmp_path / "site").mkdir()
    with pytest.raises(CannotSimulate, match="holds no file"):
        partitions(Simulation(clients=2, data=str(tmp_path)), OWN)
    (tmp_path / "site" / "dataset.json").write_text("{")
    with pytest.raises(CannotSimulate) as raised:
        partitions(Simulation(clients=2, data=str(tmp_path)), OWN)
    assert raised.value.code == "dataset-unreadable"
