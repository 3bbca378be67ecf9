"""Apps are found by name, are plain Flower apps, and have a hash that names their code."""

import ast
import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from flwr.cli.config_utils import load_and_validate
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp
from safetensors.numpy import load as load_safetensors

from flowerbed.flower_apps import initialize
from flowerbed.flower_apps.registry import (
    BUILTIN,
    code_hash,
    find,
    hash_folder,
    load,
    load_client_app,
)

APPS = sorted(BUILTIN)


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    return shutil.copytree(BUILTIN["hospital"].folder, tmp_path / "hospital")


@pytest.mark.parametrize("app", APPS)
def test_app_has_a_client_and_a_server(app: str) -> None:
    assert isinstance(load_client_app(app), ClientApp)
    assert isinstance(load(BUILTIN[app].server_app), ServerApp)


@pytest.mark.parametrize("app", APPS)
def test_folder_is_a_flower_app_to_flower_itself(app: str) -> None:
    config, warnings = load_and_validate(BUILTIN[app].folder / "pyproject.toml")
    assert config["tool"]["flwr"]["app"]["components"]["clientapp"] == BUILTIN[app].client_app
    assert isinstance(warnings, list)


@pytest.mark.parametrize("app", APPS)
def test_app_imports_nothing_of_flowerbed(app: str) -> None:
    for file in BUILTIN[app].folder.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                assert node.level <= 1, f"{file.name} imports from outside its package"
                names = [node.module or ""] if node.level == 0 else []
            assert not [name for name in names if name.startswith("flowerbed")], file.name


@pytest.mark.parametrize("app", APPS)
def test_defaults_have_every_key_that_training_reads(app: str) -> None:
    keys = {"num-server-rounds", "local-epochs", "batch-size", "learning-rate", "seed"}
    assert keys <= set(BUILTIN[app].default_config())


def test_unknown_app_is_refused_with_the_known_ones() -> None:
    known = "hospital, vision, synthetic"
    with pytest.raises(KeyError, match=f"no app is called 'cinema'; there are {known}"):
        find("cinema")


def test_hash_is_asked_without_loading_torch_or_flwr() -> None:
    program = (
        "import sys; from flowerbed.flower_apps.registry import code_hash;"
        "print(code_hash('hospital')); assert not {'torch', 'flwr', 'numpy'} & set(sys.modules)"
    )
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert answer.stdout.decode().strip() == code_hash("hospital")


def test_apps_have_different_hashes() -> None:
    assert len({code_hash(app) for app in APPS}) == len(APPS)


def test_hash_is_of_names_and_contents_and_not_of_the_place(copied: Path) -> None:
    assert hash_folder(copied) == code_hash("hospital")


def test_hash_changes_when_a_file_changes(copied: Path) -> None:
    (copied / "task.py").write_text((copied / "task.py").read_text() + "#")
    assert hash_folder(copied) != code_hash("hospital")


def test_hash_changes_when_a_default_changes(copied: Path) -> None:
    project = copied / "pyproject.toml"
    project.write_text(project.read_text().replace("local-epochs = 5", "local-epochs = 6"))
    assert hash_folder(copied) != code_hash("hospital")


def test_hash_changes_when_a_file_is_added_or_renamed(copied: Path) -> None:
    (copied / "extra.py").write_text("")
    added = hash_folder(copied)
    (copied / "extra.py").rename(copied / "other.py")
    assert len({code_hash("hospital"), added, hash_folder(copied)}) == 3


def test_hash_leaves_out_what_running_the_app_writes(copied: Path) -> None:
    (copied / "__pycache__").mkdir(exist_ok=True)
    (copied / "__pycache__" / "task.cpython-311.pyc").write_bytes(b"compiled")
    assert hash_folder(copied) == code_hash("hospital")


@pytest.mark.parametrize("app", APPS)
def test_initial_checkpoint_has_the_same_bytes_for_the_same_seed(app: str, tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("first", "again", "other")]
    for file, seed in zip(files, ("7", "7", "8"), strict=True):
        initialize.main(["--app", app, "--seed", seed, "--out", str(file)])
    first, again, other = (hashlib.sha256(file.read_bytes()).hexdigest() for file in files)
    assert first == again != other


@pytest.mark.parametrize("app", APPS)
def test_initial_checkpoint_loads_into_the_model(app: str) -> None:
    config = {**BUILTIN[app].default_config(), "seed": 7}
    expected = load(BUILTIN[app].initial_arrays)(config)
    read = load_safetensors(initialize.initial_checkpoint(app, 7))
    assert {name: array.tobytes() for name, array in read.items()} == {
        name: array.numpy().tobytes() for name, array in expected.items()
    }
