"""The live view: one line for everything new, a picture on a terminal."""

import io
from itertools import pairwise
from typing import Any

import pytest
from rich.console import Console

from flowerbed.cli.api import Api, Unreachable
from flowerbed.cli.attempts import metric_names, seconds, times
from flowerbed.cli.live import news, picture, watch
from tests.unit.cli.federation_views import COUNTS, FED, a_client, a_federation, a_round, completed
from tests.unit.cli.gateway_stub import stub_gateway


def _text(federation: dict[str, Any]) -> str:
    console = Console(file=io.StringIO(), width=160)
    console.print(picture(federation))
    printed: str = console.file.getvalue()  # type: ignore[attr-defined]  # it is the StringIO
    return printed


def test_nothing_new_is_no_news() -> None:
    assert news(completed(), completed()) == []


def test_the_first_sight_tells_everything_so_far() -> None:
    lines = news({}, completed())
    assert lines[0] == f"federation {FED} (demo)"
    assert "client client-a released" in lines
    assert "round 1 trained: 2 of 2 updates, train-loss 0.5000, zeta 1.0000" in lines
    assert "round 2 completed, accuracy 0.7500 (2.5 s: 2.0 s training, 0.5 s overhead)" in lines
    assert lines[-1].startswith("completed: s3://flowerbed/checkpoints/x sha256 ")


def test_updates_are_those_of_the_checkpoint_even_if_some_are_not_heard_of_yet() -> None:
    counts = {**COUNTS, "accepted": 1}
    before = a_federation(rounds=[a_round(1, "training", train_updates=counts)])
    after = a_federation(rounds=[a_round(1, "evaluating", train_updates=counts, n_updates=2)])
    assert news(before, after)[0].startswith("round 1 trained: 2 of 2 updates")


def test_a_round_is_told_step_by_step() -> None:
    stages = [
        a_federation(rounds=rounds)
        for rounds in (
            [a_round(1, "training")],
            [a_round(1, "failed", reason="below quorum")],
            [a_round(1, "failed", reason="below quorum"), a_round(1, "evaluating", attempt=2)],
            [
                a_round(1, "failed", reason="below quorum"),
                a_round(1, "completed", attempt=2, evaluation={}, evaluation_error="too few"),
            ],
        )
    ]
    told = [news(before, after) for before, after in pairwise(stages)]
    assert told[0] == ["round 1 failed: below quorum"]
    assert told[1] == [
        "round 1 (attempt 2) started with 2 clients",
        "round 1 (attempt 2) trained: 2 of 2 updates, train-loss 0.5000, zeta 1.0000",
    ]
    assert told[2] == [
        "round 1 (attempt 2) completed: not evaluated (too few)"
        " (2.5 s: 2.0 s training, 0.5 s overhead)"
    ]


def test_joining_and_waiting_are_told() -> None:
    before = a_federation("created", waiting_for="clients: 0 of 2 have joined")
    joined = [a_client("client-a"), a_client("client-b", "issued")]
    after = a_federation("created", waiting_for="clients: 1 of 2 have joined", clients=joined)
    assert news(before, after) == [
        "client client-a joined with hospital-client-a",
        "waiting for clients: 1 of 2 have joined",
    ]
    dropped = a_federation(
        "created",
        waiting_for="clients: 1 of 2 have joined",
        clients=[a_client("client-a", "dropped", reason="silent"), joined[1]],
    )
    assert news(after, dropped) == ["client client-a dropped: silent"]


@pytest.mark.parametrize(
    ("status", "more", "line"),
    [
        (
            "paused",
            {"waiting_for": "a person to resume it"},
            "paused: waiting for a person to resume it",
        ),
        ("cancelled", {"reason": "enough"}, "cancelled: enough"),
        ("failed", {"code": "join-timeout"}, "failed: join-timeout"),
        ("cancelled", {}, "cancelled"),
    ],
)
def test_a_change_of_status_is_the_last_line(status: str, more: Any, line: str) -> None:
    assert news(a_federation(), a_federation(status, **more))[-1] == line


def test_many_clients_at_once_are_counted() -> None:
    def federation(status: str) -> dict[str, Any]:
        clients = [a_client(f"sim-{number:05d}", status) for number in range(100)]
        return a_federation(clients=clients)

    assert "100 clients joined" in news(federation("issued"), federation("joined"))
    assert not any("sim-" in line for line in news({}, federation("joined")))
    text = _text(federation("joined"))
    assert "sim-00014" in text and "sim-00015" not in text
    assert "85 joined" in text


def test_the_picture_shows_progress_clients_and_measures() -> None:
    running = a_federation(
        clients=[a_client("client-a")],
        rounds=[a_round(1), a_round(2, "training")],
        n_rounds_completed=1,
        waiting_for="round 2, train: 1 of 2 clients (client-b)",
    )
    shown = _text(running)
    for text in ("demo", "running", "1 of 2 rounds", "client-b", "hospital-client-a", "0.7500"):
        assert text in shown, text
    assert "below quorum" in _text(a_federation("failed", reason="below quorum"))
    assert "submitted" in _text(a_federation("submitted", started_at=None, name=""))


def test_usual_measures_come_first() -> None:
    rounds = [a_round(1, training={"zeta": 1.0, "auroc": 1.0}), a_round(2)]
    assert metric_names(rounds) == ["train-loss", "accuracy", "auroc", "zeta"]


def test_overhead_is_what_training_does_not_explain() -> None:
    assert times(a_round(1)) == (2.5, 2.0, 0.5)
    assert times(a_round(1, total_seconds=1.0)) == (1.0, 2.0, 0.0)
    assert times(a_round(1, "training")) == (None, None, None)
    assert [seconds(value) for value in (None, 1.25, 61.0, 3600.0)] == [
        "",
        "1.2 s",
        "1 min 1 s",
        "60 min 0 s",
    ]


def test_watching_waits_for_a_gateway_that_is_away() -> None:
    output = io.StringIO()
    with stub_gateway() as stub:
        for status, body in ((200, a_federation()), (503, {"detail": "away"}), (200, completed())):
            stub.answer(f"GET /federations/{FED}", body, status)
        console = Console(file=output, width=200)
        ended = watch(Api(stub.url, "t"), FED, console=console, interval=0.001)
    assert ended["status"] == "completed"
    assert "waiting for the gateway: away" in output.getvalue()


def test_a_terminal_gets_a_picture() -> None:
    output = io.StringIO()
    with stub_gateway() as stub:
        stub.answer(f"GET /federations/{FED}", a_federation())
        stub.answer(f"GET /federations/{FED}", completed())
        console = Console(file=output, width=200, height=40, force_terminal=True)
        watch(Api(stub.url, "t"), FED, console=console, interval=0.001)
    assert "2 of 2 rounds" in output.getvalue()


def test_watching_gives_up_when_told_to() -> None:
    with stub_gateway() as stub:
        stub.answer(f"GET /federations/{FED}", a_federation())
        with pytest.raises(Unreachable, match="did not end within 0 s"):
            watch(
                Api(stub.url, "t"), FED, console=Console(file=io.StringIO()), interval=0.001,
                timeout=0,
            )  # fmt: skip


def test_what_updates_have_sent_is_shown_where_they_travel_in_fewer_bytes() -> None:
    sent = {"form": "int8", "sent": 51_200, "full": 204_800, "error": 0.01}
    shown = _text(a_federation(rounds=[a_round(1, update_bytes=sent), a_round(2)]))
    assert "sent" in shown and "50.0 KiB int8 (25.0%)" in shown
    in_full = {"form": None, "sent": 204_800, "full": None, "error": None}
    assert "sent" not in _text(a_federation(rounds=[a_round(1, update_bytes=in_full)]))


WHOLE = {"spec": {"server_app": "whole"}}


def an_exchange(number: int, status: str = "completed", **more: Any) -> dict[str, Any]:
    times_of: dict[str, Any] = {"train_seconds": None, "evaluate_seconds": None, "evaluation": {}}
    counts = {"num-replies": 1.0, "num-errors": 1.0} if status == "completed" else {}
    return a_round(number, status, **{"training": counts, **times_of, **more})


def test_a_whole_serverapps_exchanges_are_told_as_such() -> None:
    last = an_exchange(2, training={"train-loss": 0.5}, evaluation={"accuracy": 0.75})
    stages = [
        a_federation(spec=WHOLE, rounds=rounds)
        for rounds in (
            [],
            [an_exchange(1, "training")],
            [an_exchange(1), an_exchange(2, "training", n_cohort=1)],
            [an_exchange(1), an_exchange(2, n_cohort=1)],
            [an_exchange(1), last],
        )
    ]
    told = [news(before, after) for before, after in pairwise(stages)]
    assert news({}, stages[-1])[-2:] == [*told[-1], "running"], "also for who looks once"
    assert told == [
        ["exchange 1: 2 messages sent"],
        ["exchange 1 done: 1 of 2 replies, 1 error (2.5 s)", "exchange 2: 1 message sent"],
        ["exchange 2 done: 1 of 1 replies, 1 error (2.5 s)"],
        ["the app has measured train-loss 0.5000, accuracy 0.7500"],
    ]
    shown = _text(a_federation(spec=WHOLE, rounds=[an_exchange(1), last], n_rounds_completed=2))
    for text in ("2 of 2 exchanges", "exchange", "replies", "1/2", "0.7500"):
        assert text in shown, text
    for text in ("num-", "overhead", "updates", "rounds"):
        assert text not in shown, text
