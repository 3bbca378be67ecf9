"""MLflow: a run for each federation, in an experiment for each tenant."""

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag

from flowerbed.cli.tracking.rounds import MARK, Measured, Run

MOST_AT_ONCE = 1000
"""Metrics that MLflow takes in one call."""
TAG = "flowerbed.federation_id"
_STATUSES = {"completed": "FINISHED", "failed": "FAILED", "cancelled": "KILLED"}


class MLflow:
    def __init__(self, uri: str) -> None:
        self._client = MlflowClient(tracking_uri=uri)
        self._runs: dict[str, str] = {}

    def last_round(self, run: Run) -> int:
        history = self._client.get_metric_history(self._run(run), MARK)
        return max((metric.step for metric in history), default=0)

    def log(self, run: Run, one: Measured) -> None:
        at = round(one.at.timestamp() * 1000)
        metrics = [Metric(name, value, at, one.number) for name, value in one.values.items()]
        for first in range(0, len(metrics), MOST_AT_ONCE):
            self._client.log_batch(self._run(run), metrics[first : first + MOST_AT_ONCE])

    def end(self, run: Run, status: str) -> None:
        self._client.set_terminated(self._run(run), _STATUSES.get(status, "FAILED"))

    def close(self) -> None:
        """Everything is there already."""

    def _run(self, run: Run) -> str:
        """Its id; a run that an earlier tracker has begun is gone on with."""
        if run.federation_id not in self._runs:
            self._runs[run.federation_id] = self._find(run) or self._begin(run)
        return self._runs[run.federation_id]

    def _experiment(self, run: Run) -> str:
        name = f"flowerbed/{run.tenant}"
        known = self._client.get_experiment_by_name(name)
        return str(known.experiment_id if known else self._client.create_experiment(name))

    def _find(self, run: Run) -> str | None:
        wanted = f"tags.`{TAG}` = '{run.federation_id}'"
        found = self._client.search_runs([self._experiment(run)], wanted, max_results=1)
        return str(found[0].info.run_id) if found else None

    def _begin(self, run: Run) -> str:
        tags = {TAG: run.federation_id}
        made = self._client.create_run(self._experiment(run), tags=tags, run_name=run.name)
        run_id = str(made.info.run_id)
        params = [Param(name, str(value)) for name, value in run.settings.items()]
        self._client.log_batch(run_id, params=params, tags=[RunTag("tenant", run.tenant)])
        return run_id
