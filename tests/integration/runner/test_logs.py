"""What an app writes reaches the control plane, without the site's names, and stands in no way."""

from collections.abc import Callable

from flowerbed.contracts.values import DatasetRef
from flowerbed.runner.log_lines import BURST, KEPT
from flowerbed.runner.settings import AgentSettings
from flowerbed.runner.state import StateDir
from tests.integration.runner.conftest import BASE, AgentThread
from tests.integration.runner.control_plane import ControlPlane, wait_for

Start = Callable[[], AgentThread]


def worked(
    control_plane: ControlPlane, reference: DatasetRef, behave: str, attempt: int = 1
) -> None:
    """One training, in which the app behaves like this."""
    control_plane.offer()
    more = {"config": {"behave": behave}, "attempt": attempt}
    control_plane.orders.append(control_plane.order(BASE, dataset_sha256=reference.sha256, **more))


def test_prints_logs_and_flowers_logger_reach_the_operator_scrubbed(
    control_plane: ControlPlane, reference: DatasetRef, start_agent: Start
) -> None:
    control_plane.fail_next("/logs", 503)  # told again, once
    worked(control_plane, reference, "log")
    start_agent()
    wait_for(lambda: control_plane.reports, "the report")
    said = wait_for(
        lambda: len(control_plane.said) >= 5 and control_plane.said, "the app's log lines"
    )
    assert said[0].startswith("INFO flowerbed.worker: tiny is loaded: Flower 1.")
    assert said.count("the app prints to standard output") == 1
    assert said.count("from below Python") == 1
    assert "INFO tiny: read <path>" in said
    (flowers,) = [line for line in said if "flower's own logger" in line]
    assert flowers.startswith("WARNING") and flowers.endswith("for <mail>")
    for secret in (b"st-elsewhere", b"cardiology", b"rows.txt", b"anna"):
        assert secret not in control_plane.received


def test_what_an_app_raises_is_in_its_log_lines(
    control_plane: ControlPlane, reference: DatasetRef, start_agent: Start
) -> None:
    worked(control_plane, reference, "raise")
    start_agent()
    wait_for(lambda: control_plane.failures, "the failure")
    said = wait_for(lambda: [line for line in control_plane.said if line.startswith("ValueError")])
    assert said == ["ValueError: cannot read <path> of 'ward 7'"]
    assert b"cardiology" not in control_plane.received


def test_a_flood_of_lines_delays_no_work_and_is_counted(
    control_plane: ControlPlane, reference: DatasetRef, start_agent: Start
) -> None:
    worked(control_plane, reference, "flood")
    start_agent()
    wait_for(lambda: control_plane.reports, "the report")

    def n_left_out() -> int:
        lines = list(control_plane.lines.values())
        return sum(int(line.text.split()[0]) for line in lines if line.kind == "left-out")

    wait_for(lambda: n_left_out() > 19_000, "what was left out is counted")
    assert len(control_plane.lines) < BURST + 100


def test_a_site_may_keep_its_lines(
    control_plane: ControlPlane, reference: DatasetRef, enrolled: StateDir, start_agent: Start
) -> None:
    settings = AgentSettings.load(enrolled)
    AgentSettings(dataset=settings.dataset, task=settings.task, logs=False).save(enrolled)
    worked(control_plane, reference, "log")
    start_agent()
    wait_for(lambda: control_plane.reports, "the report")
    wait_for(lambda: control_plane.said)
    assert control_plane.said == [KEPT]
    assert b"the app prints" not in control_plane.received


def test_a_door_of_an_older_release_takes_no_lines_and_work_goes_on(
    control_plane: ControlPlane, reference: DatasetRef, start_agent: Start
) -> None:
    control_plane.fail_next("/logs", 404)
    worked(control_plane, reference, "log")
    start_agent()
    wait_for(lambda: control_plane.reports, "the report")
    wait_for(lambda: not control_plane.faults, "the lines are refused")
    worked(control_plane, reference, "log", attempt=2)
    wait_for(lambda: len(control_plane.reports) == 2, "another report")
    assert control_plane.said == []
