"""Whose tokens the gateway takes: read from a file, kept, and told to the gateway alone."""

import json
from pathlib import Path

import pytest

from flowerbed.embedded.errors import BadInput
from flowerbed.embedded.issuers import keep_issuers, kept_issuers, wanted_issuers
from flowerbed.embedded.layout import Layout
from flowerbed.embedded.services import settings
from flowerbed.embedded.setup import Setup
from flowerbed.gateway.settings import GatewaySettings

FILE = """
- issuer: https://id.example/realms/research
  audience: flowerbed
  groups_claim: [app, groups]
  group_roles:
    admins: {"*": admin}
  tenants: [acme, rival]
"""


@pytest.fixture
def setup(tmp_path: Path) -> Setup:
    return Setup.prepare(Layout(tmp_path / "state"))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "issuers.yaml"
    path.write_text(FILE)
    return path


def test_issuers_are_kept_until_another_file_is_given(setup: Setup, file: Path) -> None:
    layout = setup.layout
    assert wanted_issuers(layout, None) == ()
    wanted = wanted_issuers(layout, file)
    keep_issuers(layout, wanted)
    assert kept_issuers(layout) == wanted_issuers(layout, None) == wanted
    assert layout.issuers.stat().st_mode & 0o777 == 0o600
    file.write_text("[]")
    keep_issuers(layout, wanted_issuers(layout, file))
    assert kept_issuers(layout) == ()


def test_the_gateway_reads_them_from_its_settings(
    setup: Setup, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = wanted_issuers(setup.layout, file)
    keep_issuers(setup.layout, wanted)
    told = tmp_path / "gateway.json"
    told.touch(mode=0o600)
    told.write_text(json.dumps(settings(setup, "gateway")))
    monkeypatch.setenv("FLOWERBED_SETTINGS_FILE", str(told))
    monkeypatch.setenv("FLOWERBED_GATEWAY_LIMIT_REQUESTS", "7/second")
    read = GatewaySettings.load()
    assert read.issuers == wanted
    assert (read.limits.requests.count, read.limits.requests.seconds) == (7, 1)
    one = {"issuer": "https://other.example", "audience": "x"}
    monkeypatch.setenv("FLOWERBED_GATEWAY_ISSUERS", json.dumps([one]))
    assert [each.issuer for each in GatewaySettings.load().issuers] == ["https://other.example"]
    assert "issuers" not in settings(setup, "lease")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("- issuer: http://id.example\n  audience: x", "0.issuer: Value error"),
        ("- issuer: https://id.example", "0.audience: Field required"),
        ("a: [", "line 2, column 1"),
        ("7", "tuple"),
        (FILE + FILE, "given twice"),
    ],
)
def test_a_file_that_names_no_issuers_is_bad_input(
    setup: Setup, file: Path, text: str, said: str
) -> None:
    file.write_text(text)
    with pytest.raises(BadInput, match=r"--issuers .*issuers\.yaml: ") as refused:
        wanted_issuers(setup.layout, file)
    assert said in str(refused.value)


def test_a_file_that_is_not_there_is_bad_input(setup: Setup, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="No such file"):
        wanted_issuers(setup.layout, tmp_path / "none.yaml")
