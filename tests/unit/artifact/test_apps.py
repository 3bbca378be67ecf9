"""A bundle of a tenant is pushed once and for all."""

from flowerbed.artifact.apps import PushApp, app, stream_of
from flowerbed.contracts.apps import AppPushed, bundle_uri
from flowerbed.events.testing import given

SHA256 = "a" * 64
PUSHED = AppPushed(
    sha256=SHA256,
    size=7,
    uri=bundle_uri("flowerbed", "acme", SHA256),
    name="drift",
    version="1",
    publisher="alice",
    pushed_by="alice",
)


def test_a_bundle_is_recorded_with_who_pushed_it() -> None:
    given(app).when(PushApp(pushed=PUSHED)).then(PUSHED)


def test_the_same_bytes_again_are_the_same_app_whoever_pushes_them() -> None:
    again = PUSHED.model_copy(update={"pushed_by": "bob"})
    given(app, PUSHED).when(PushApp(pushed=again)).then_nothing()
    assert app.replay([PUSHED]) == PUSHED


def test_two_tenants_with_the_same_bytes_have_an_app_each() -> None:
    assert stream_of("acme", SHA256) != stream_of("other", SHA256)
    assert PUSHED.uri == f"s3://flowerbed/apps/acme/{SHA256}.fab"
