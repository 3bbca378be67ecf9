"""The bundle of a run: the same bytes wherever it is made, and one that Flower itself takes."""

import hashlib
from pathlib import Path

import pytest
from flwr.cli.install import install_from_fab
from flwr.common.config import get_fab_config

from flowerbed.contracts import run_bundle as run_bundles
from flowerbed.contracts.bundle import BadBundle, files_of, run_config
from flowerbed.contracts.run_bundle import run_bundle
from flowerbed.contracts.values import Scalar
from flowerbed.flower_apps import registry
from tests.support.apps import FILES

BRIDGE = {"bridge.py": b"app = None\n"}
TOLD: dict[str, Scalar] = {"local_epochs": 2, "note": 'a "quoted"\n\x7f\\ ünï 🌼'}


def made(files: dict[str, bytes] | None = None, **config: Scalar) -> bytes:
    return run_bundle(files or {}, "drift.client_app:app", BRIDGE, config, TOLD)


def test_the_same_app_and_words_give_the_same_bytes() -> None:
    files = {name: text.encode() for name, text in FILES.items()}
    backwards = dict(reversed(files.items()))
    assert made(files, lr=0.5) == made(backwards, lr=0.5)
    assert made(files, lr=0.5) != made(files, lr=0.25)
    empty = hashlib.sha256(made()).hexdigest()
    assert empty == "097f2d165788f7fd236bea0a4f41b0115e0ce10e817134fad1a0b086f1a038d5", (
        "what an earlier release made would not be taken"
    )


def test_flower_takes_it_and_finds_our_halves_and_the_apps_words(tmp_path: Path) -> None:
    files = {name: text.encode() for name, text in FILES.items()}
    raw = run_bundle(files, "drift.client_app:app", registry.bridge(), run_config({}, TOLD), TOLD)
    folder = install_from_fab(raw, tmp_path, skip_prompt=True)
    assert (folder / "drift" / "client_app.py").read_bytes() == files["drift/client_app.py"]
    assert (folder / "flowerbed_bridge" / "bridge.py").read_bytes() == registry.bridge()[
        "bridge.py"
    ]
    app = get_fab_config(raw)["tool"]["flwr"]["app"]
    assert app["components"] == {
        "serverapp": "flowerbed.aggregator.flower_server_app:app",
        "clientapp": "flowerbed_bridge.bridge:app",
    }
    assert app["config"]["note"] == TOLD["note"]
    assert app["config"]["flowerbed-client-app"] == "drift.client_app:app"
    assert app["config"]["flowerbed-local-epochs"] == 2


def test_what_would_hide_a_part_of_ours_is_refused() -> None:
    with pytest.raises(BadBundle, match=r"'flowerbed_bridge/bridge\.py' is where Flowerbed's own"):
        made({"flowerbed_bridge/bridge.py": b""})
    with pytest.raises(BadBundle, match="'flowerbed-attempt' in its config"):
        run_bundle({}, "drift.client_app:app", BRIDGE, {"flowerbed-attempt": 3}, TOLD)


def test_one_that_flower_would_not_take_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_bundles, "LARGEST_BUNDLE", 5000)
    with pytest.raises(BadBundle, match=r"unpacked it has .* bytes, at most 5000 run so"):
        made({"drift/data.py": b"#" * 5000})


def test_notes_of_another_bundle_are_left_out() -> None:
    assert ".info/CONTENT" in files_of(made())
    assert made({".info/CONTENT": b"of the app's own bundle"}) == made()
