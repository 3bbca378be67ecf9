"""A site's own rules: what they forbid is refused, with the rule's name."""

from pathlib import Path
from typing import Any

import pytest

from flowerbed.contracts.signed import Manifest
from flowerbed.runner.errors import BadInput, Refused
from flowerbed.runner.site_policy import SitePolicy, is_policy
from flowerbed.runner.state import StateDir

OWN = "a" * 64


def manifest(app: str = f"fab:{OWN}", **changes: Any) -> Manifest:
    return Manifest.model_validate(
        {
            "iss": "flowerbed-lease", "aud": "c", "nbf": 0, "exp": 1, "iat": 0, "jti": "j",
            "tenant": "acme", "federation_id": "f", "client_id": "c", "lease_id": "l",
            "lease_epoch": 1, "app": app, "code_hash": OWN, "model_uri": "s3://b/k",
            "model_sha256": None, "strategy": "fedavg", "hyper_parameters": {"local_epochs": 3},
            "limits": {"ttl_seconds": 60}, **changes,
        }
    )  # fmt: skip


def test_at_first_only_the_apps_that_ship_with_us_may_run() -> None:
    SitePolicy().check_offer(manifest("builtin:hospital"))
    with pytest.raises(Refused, match=f"fab:{OWN} is not among apps") as refused:
        SitePolicy().check_offer(manifest())
    assert refused.value.code == "policy-app" and is_policy(refused.value.code)


@pytest.mark.parametrize(
    "rules",
    [
        {"apps": [OWN]}, {"any_app": True}, {"apps": [OWN], "tenants": ["acme"]},
        {"apps": [OWN], "max_local_epochs": 3, "max_epochs": 3},
    ],
)  # fmt: skip
def test_what_the_rules_allow_may_be_claimed(rules: dict[str, Any]) -> None:
    SitePolicy.model_validate(rules).check_offer(manifest())


def test_a_bound_on_all_epochs_is_refused_where_nobody_counts_them() -> None:
    policy = SitePolicy(max_epochs=100)
    policy.check_offer(manifest("builtin:hospital"))
    with pytest.raises(Refused, match="nobody counts those of a SuperNode") as refused:
        policy.check_offer(manifest("builtin:hospital", runtime="superlink"))
    assert refused.value.code == "policy-epochs"


@pytest.mark.parametrize(
    ("rules", "app", "code", "words"),
    [
        ({"apps": ["b" * 64]}, f"fab:{OWN}", "policy-app", "is not among apps"),
        ({"builtin_apps": False}, "builtin:hospital", "policy-app", "builtin_apps is false"),
        ({"tenants": []}, "builtin:hospital", "policy-tenant", "'acme' is not among tenants"),
        ({"tenants": ["other"]}, "builtin:hospital", "policy-tenant", "'acme' is not among"),
        ({"max_local_epochs": 2}, "builtin:hospital", "policy-epochs", "max_local_epochs 2"),
        ({"max_epochs": 2}, "builtin:hospital", "policy-epochs", "max_epochs 2"),
        ({"min_noise_multiplier": 1.0}, "builtin:hospital", "policy-privacy", "min_noise"),
        ({"max_clipping_norm": 1.0}, "builtin:hospital", "policy-privacy", "max_clipping"),
    ],
)
def test_what_a_rule_forbids_is_refused_by_its_name(
    rules: dict[str, Any], app: str, code: str, words: str
) -> None:
    with pytest.raises(Refused, match=words) as refused:
        SitePolicy.model_validate(rules).check_offer(manifest(app))
    assert refused.value.code == code


def test_a_site_may_keep_the_spread_of_its_labels_to_itself() -> None:
    policy, asking = SitePolicy(label_entropy=False), {"weighs_by_entropy": True}
    policy.check_offer(manifest("builtin:hospital"))
    SitePolicy().check_offer(manifest("builtin:hospital", **asking))
    with pytest.raises(Refused, match="label_entropy is false") as refused:
        policy.check_offer(manifest("builtin:hospital", **asking))
    assert refused.value.code == "policy-disclosure"


def test_epochs_are_counted_over_all_work_of_a_lease() -> None:
    policy = SitePolicy(max_epochs=10)
    policy.check_epochs(5, 5)
    policy.check_epochs(0, 10)
    with pytest.raises(Refused, match="6 epochs trained, 5 ordered, max_epochs 10"):
        policy.check_epochs(5, 6)


def test_the_rules_are_kept_in_a_file_that_people_can_read(tmp_path: Path) -> None:
    state = StateDir.at(tmp_path)
    assert SitePolicy.load(state) == SitePolicy()
    policy = SitePolicy().changed({"apps": [OWN], "max_epochs": 5})
    policy.save(state)
    assert SitePolicy.load(state) == policy
    assert f'"{OWN}"' in state.policy.read_text()


@pytest.mark.parametrize("text", ["", "{", '{"appps": []}', '{"apps": ["short"]}', "[]"])
def test_a_file_that_cannot_be_read_allows_nothing(text: str, tmp_path: Path) -> None:
    state = StateDir.at(tmp_path)
    state.policy.write_text(text)
    with pytest.raises(BadInput, match=r"policy\.json cannot be read"):
        SitePolicy.load(state)


@pytest.mark.parametrize(
    "changes", [{"apps": ["x"]}, {"max_epochs": 0}, {"min_noise_multiplier": -1.0}]
)
def test_a_value_that_no_rule_can_have_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(BadInput):
        SitePolicy().changed(changes)
