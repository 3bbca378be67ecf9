"""No secret in a log, an event, a process's arguments or its environment."""

from pathlib import Path

import psutil

from flowerbed.embedded.credentials import read_credentials
from tests.support.field import Field


async def test_no_secret_is_in_a_log_an_event_or_a_process(field: Field) -> None:
    secrets = read_credentials(field.stack.layout).values()
    assert len(secrets) > 10
    logs = [*field.stack.layout.logs.glob("*.log"), *(s.home / "client.log" for s in field.sites)]
    told = {log.name: log.read_text(errors="replace") for log in logs}
    for service in ("orchestrator", "lease", "aggregator", "artifact", "gateway"):
        rows = await field.rows(service, "SELECT data::text AS d, meta::text AS m FROM events")
        told[f"events of {service}"] = "".join(row["d"] + row["m"] for row in rows)
    for process in psutil.process_iter(["pid", "cmdline", "environ", "name"]):
        text = " ".join(process.info["cmdline"] or []) + str(process.info["environ"] or "")
        if str(field.stack.state_dir) in text or "flowerbed" in text:
            told[f"process {process.info['pid']} {process.info['name']}"] = text
    leaks = [(name, s[:4]) for name, text in told.items() for s in secrets if s in text]
    assert leaks == []


def test_a_sites_path_is_in_no_log_and_no_event_of_the_control_plane(field: Field) -> None:
    for log in field.stack.layout.logs.glob("*.log"):
        text = log.read_text(errors="replace")
        for site in field.sites:
            assert str(site.folder) not in text, log.name
            assert site.name not in text, log.name


def test_secrets_lie_in_private_files(field: Field) -> None:
    private: list[Path] = [*field.stack.layout.secrets.rglob("*")]
    for site in field.sites:
        private += [site.home / "client.pem", site.home / "identity.json"]
    for path in private:
        mode = path.stat().st_mode & 0o777
        assert mode & 0o077 == 0 or path.name == "ca.pem", f"{path} has mode {mode:o}"
