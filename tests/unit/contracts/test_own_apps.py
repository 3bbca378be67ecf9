"""A spec may name an app that was pushed; an older release is not asked to read it."""

from typing import Any

import pytest

from flowerbed.contracts.problems import SpecRefused, parse_spec
from flowerbed.contracts.spec import Spec, builtin_apps
from tests.support.federations import document

SHA256 = "0123456789abcdef" * 4
OWN = f"fab:{SHA256}"


def spec(**changes: Any) -> Spec:
    return parse_spec(document(**changes)).spec


@pytest.mark.parametrize("uri", ["app:pkg.task:Net", "app:task:models.small", "s3://b/k"])
def test_an_app_of_ones_own_is_named_by_its_digest(uri: str) -> None:
    found = parse_spec(document(app=OWN, model_ref={"uri": uri}))
    assert (found.spec.app, found.spec.code_hash) == (OWN, SHA256)
    assert found.release == 2
    assert parse_spec(found.brief()) == found


def test_the_code_of_an_app_that_ships_with_us_is_known() -> None:
    found = spec(app="builtin:hospital", model_ref={"uri": "builtin:hospital"})
    assert found.code_hash == builtin_apps()["hospital"]


@pytest.mark.parametrize(
    ("app", "uri", "path"),
    [
        ("fab:0123", "s3://b/k", "spec.app"),
        (OWN.upper(), "s3://b/k", "spec.app"),
        ("./quickstart", "s3://b/k", "spec.app"),
        ("builtin:nothing", "s3://b/k", "spec.app"),
        (OWN, "builtin:hospital", "spec.model_ref"),
        (OWN, "app:task", "spec.model_ref.uri"),
        (OWN, "app:task:Net()", "spec.model_ref.uri"),
        (OWN, "app:os; x:Net", "spec.model_ref.uri"),
        ("builtin:hospital", "app:task:Net", "spec.model_ref"),
    ],
)
def test_other_names_are_refused(app: str, uri: str, path: str) -> None:
    with pytest.raises(SpecRefused) as refused:
        parse_spec(document(app=app, model_ref={"uri": uri}))
    assert path in [one.path for one in refused.value.problems]
