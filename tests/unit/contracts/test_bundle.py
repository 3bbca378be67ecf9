"""A bundle is read with suspicion: what could leave its folder or fill a disk is refused."""

import io
import stat
import zipfile
from pathlib import Path

import pytest

from flowerbed.contracts import bundle as bundles
from flowerbed.contracts.bundle import BadBundle, read_bundle, unpack
from tests.support.apps import FILES, PROJECT, bundle, digest


def without(line: str) -> bytes:
    assert line in PROJECT
    return bundle({"pyproject.toml": PROJECT.replace(line, "")})


def test_a_bundle_says_what_it_is() -> None:
    raw = bundle()
    found = read_bundle(raw)
    assert (found.name, found.version, found.publisher) == ("drift", "1.2.0", "alice")
    assert (found.client_app, found.size) == ("drift.client_app:app", len(raw))
    assert found.sha256 == digest(raw)
    assert found.config == {"local-epochs": 1, "lr": 0.5, "optimizer.name": "sgd"}


def test_it_is_unpacked_whole_and_replaces_what_was_there(tmp_path: Path) -> None:
    folder = tmp_path / "apps" / "lease-1"
    folder.mkdir(parents=True)
    (folder / "old.py").write_text("old")
    unpack(bundle(), folder)
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert files == set(FILES)
    assert [path.name for path in folder.parent.iterdir()] == ["lease-1"], "nothing else is left"


@pytest.mark.parametrize(
    "name",
    [
        "../evil.py", "drift/../../evil.py", "/etc/evil.py", "drift//evil.py", "./evil.py",
        "..\\evil.py", "C:evil.py", "C:\\evil.py", "evil\n.py", "..",
    ],
)  # fmt: skip
def test_no_file_is_written_outside_of_the_folder(name: str, tmp_path: Path) -> None:
    raw = bundle({name: "print('out')"})
    with pytest.raises(BadBundle, match="no name of a file below"):
        unpack(raw, tmp_path / "app")
    assert list(tmp_path.iterdir()) == []


def test_a_link_is_no_file(tmp_path: Path) -> None:
    out = io.BytesIO(bundle())
    with zipfile.ZipFile(out, "a") as archive:
        link = zipfile.ZipInfo("drift/data")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, "/etc")
    with pytest.raises(BadBundle, match="a link or a device"):
        unpack(out.getvalue(), tmp_path / "app")


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"", "no zip file"),
        (b"PK\x03\x04 and then nothing", "no zip file"),
        (bundle()[:-40], "no zip file"),
        (bundle(files={"drift/client_app.py": ""}), "has no pyproject.toml"),
        (bundle(files={"app/pyproject.toml": PROJECT}), "has no pyproject.toml"),
        (bundle({"pyproject.toml": "[project"}), "cannot be read"),
        (bundle({"pyproject.toml": "a = 1"}), "names no Flower app"),
        (without('clientapp = "drift.client_app:app"'), "names no Flower app"),
        (without('version = "1.2.0"'), "no version in"),
        (without('publisher = "alice"'), "no publisher in"),
        (
            bundle({"pyproject.toml": PROJECT.replace("lr = 0.5", "lr = [1]")}),
            "no text, number or boolean",
        ),
        (bundle({"Drift/task.py": ""}), "twice"),
        (bundle({"drift": "a file"}), "below a file"),
    ],
)
def test_what_holds_no_flower_app_is_refused_in_words_for_its_author(
    raw: bytes, words: str
) -> None:
    with pytest.raises(BadBundle, match=words):
        read_bundle(raw)


def test_a_damaged_byte_is_noticed() -> None:
    raw = bytearray(bundle())
    raw[raw.index(b"drift/task.py") + 20] ^= 0xFF
    with pytest.raises(BadBundle, match="no zip file"):
        read_bundle(bytes(raw))


def test_what_is_too_large_is_refused_before_it_is_unpacked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    large = bundle({"drift/zeros.py": "0" * 1_000_000})
    assert len(large) < 10_000
    monkeypatch.setattr(bundles, "LARGEST_UNPACKED", 900_000)
    with pytest.raises(BadBundle, match="unpacks to"):
        read_bundle(large)
    monkeypatch.setattr(bundles, "LARGEST_BUNDLE", 100)
    with pytest.raises(BadBundle, match="at most 100 are taken"):
        read_bundle(large)


def test_another_compression_is_not_taken() -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_BZIP2) as archive:
        archive.writestr("pyproject.toml", PROJECT)
    with pytest.raises(BadBundle, match="not deflated"):
        read_bundle(out.getvalue())
