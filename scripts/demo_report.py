"""The end of the demo: what came out, beside what it should be compared with, and every check.

Nothing here is taken on trust: the checkpoint is fetched from S3 with plain boto3, hashed, compared
with Postgres, loaded into the app's own model and scored; the aggregates are folded again.
"""

import asyncio
import hashlib
import math
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import asyncpg  # type: ignore[import-untyped]  # has no stubs
import boto3
from rich.console import Console
from rich.table import Table

from flowerbed.cli.api import Api
from flowerbed.cli.attempts import times
from flowerbed.embedded.stack import Stack
from scripts.baselines import Scores, compare, evaluate_checkpoint, spread

FLOORS = {"hospital": 0.76, "vision": 0.90}
"""Below this accuracy on the held-out rows, nobody would call the model trained."""


@dataclass
class Report:
    stack: Stack
    api: Api
    federation: dict[str, Any]
    data: Path
    document: dict[str, Any]
    scratch: Path
    console: Console

    def show(self, n_seeds: int) -> bool:
        """Print the summary. True if every check held."""
        self._rounds()
        self._references(n_seeds)
        self._lineage()
        return self._checks()

    # --- figures ------------------------------------------------------------

    @cached_property
    def rounds(self) -> list[dict[str, Any]]:
        return [one for one in self.federation["rounds"] if one["status"] == "completed"]

    @cached_property
    def files(self) -> dict[str, Path]:
        """Every recorded checkpoint by its digest in Postgres, fetched with plain boto3."""
        access = self.stack.s3
        s3 = boto3.client(
            "s3",
            endpoint_url=access.endpoint,
            aws_access_key_id=access.access_key,
            aws_secret_access_key=access.secret_key,
            region_name="us-east-1",
        )
        files = {}
        for row in self.recorded:
            bucket, _, key = row["uri"].removeprefix("s3://").partition("/")
            file = self.scratch / row["sha256"]
            s3.download_file(bucket, key, str(file))
            files[row["sha256"]] = file
        return files

    @cached_property
    def recorded(self) -> list[dict[str, Any]]:
        """The checkpoints as the artifact service's Postgres has them, oldest first."""
        return asyncio.run(self._recorded())

    async def _recorded(self) -> list[dict[str, Any]]:
        connection = await asyncpg.connect(self.stack.postgres_dsn("artifact", "reader"))
        try:
            rows = await connection.fetch(
                "SELECT round_number, kind, sha256, uri, parents FROM artifacts"
                " WHERE federation_id = $1 AND kind <> 'state' ORDER BY round_number",
                self.federation["federation_id"],
            )
        finally:
            await connection.close()
        return [dict(row) for row in rows]

    @cached_property
    def scores(self) -> dict[str, Scores]:
        return {sha256: evaluate_checkpoint(self.data, f) for sha256, f in self.files.items()}

    @property
    def final(self) -> dict[str, Any]:
        final: dict[str, Any] = self.federation["final"]
        return final

    # --- what is shown ------------------------------------------------------

    def _title(self, text: str) -> None:
        self.console.print(f"\n[bold green]•[/] [bold]{text}[/]")

    def _rounds(self) -> None:
        self._title("Rounds: the global model on the held-out rows of all sites together")
        table = _table("round", "accuracy", "AUROC", "loss", "seconds", "training", "overhead")
        for one in self.rounds:
            score = self.scores[one["checkpoint_sha256"]].pooled
            total, trained, overhead = times(one)
            table.add_row(
                str(one["round_number"]),
                f"{score.accuracy:.3f}",
                _number(score.auroc),
                f"{score.loss:.3f}",
                *(f"{value or 0.0:.2f}" for value in (total, trained, overhead)),
            )
        self.console.print(table)
        spent = [times(one) for one in self.rounds]
        overhead = sorted(value[2] or 0.0 for value in spent)[len(spent) // 2]
        self.console.print(f"  median overhead of a round: {overhead:.2f} s")
        self.console.print("  AUROC is over all held-out rows; the live view has the sites' mean.")

    def _references(self, n_seeds: int) -> None:
        self._title("Beside training alone and pooled")
        train = self.document["spec"]["train"]
        mu = self.document["spec"]["strategy"].get("params", {}).get("proximal_mu", 0.0)
        config = {key.replace("_", "-"): value for key, value in train.items() if key != "seed"}
        seeds = range(train["seed"], train["seed"] + n_seeds)
        self.console.print(
            f"  Below this run: the same app in one process, mean ± deviation over seeds"
            f" {seeds.start} to {seeds.stop - 1}."
        )
        found = [
            compare(self.data, len(self.rounds), seed, {**config, "proximal-mu": mu})
            for seed in seeds
        ]
        table = _table("trained on", "accuracy", "AUROC", "accuracy on its own held-out rows")
        final = self.scores[self.final["sha256"]]
        this_run = f"{final.pooled.accuracy:.3f}", _number(final.pooled.auroc)
        table.add_row("this run", *this_run, "")
        federated = [one.federated[-1].pooled for one in found]
        table.add_row("four sites", *_spread(federated), "")
        table.add_row("all rows pooled", *_spread([one.pooled.pooled for one in found]), "")
        for name in found[0].alone:
            alone = [one.alone[name] for one in found]
            own = spread([score.sites[name].accuracy for score in alone])
            here = f"{own}  (federated {final.sites[name].accuracy:.3f})"
            table.add_row(f"{name} alone", *_spread([score.pooled for score in alone]), here)
        self.console.print(table)

    def _lineage(self) -> None:
        self._title("Lineage, from the base to the final checkpoint")
        for row in self.recorded:
            parents = ", ".join(parent[:12] for parent in row["parents"]) or "-"
            self.console.print(f"  {row['round_number']:>3}  {row['sha256'][:12]}  from {parents}")
        self.console.print(f"  final: {self.final['uri']}")
        self.console.print(f"  sha256 {self.final['sha256']}")

    # --- what is checked ----------------------------------------------------

    def _checks(self) -> bool:
        self._title("Checks")
        checks = {
            "every checkpoint in S3 hashes to the sha256 in Postgres": self._hashes_hold(),
            "each checkpoint's parent is the one before it": self._lineage_holds(),
            "the reported accuracy is that of the fetched checkpoint": self._accuracy_holds(),
            "every aggregate, folded again from the log, gives the same bytes": self._folds_hold(),
            "the model is trained": self._is_trained(),
        }
        for text, held in checks.items():
            self.console.print(f"  {'[green]yes[/]' if held else '[red]NO [/]'}  {text}")
        return all(checks.values())

    def _hashes_hold(self) -> bool:
        return self.final["sha256"] in self.files and all(
            hashlib.sha256(file.read_bytes()).hexdigest() == sha256
            for sha256, file in self.files.items()
        )

    def _lineage_holds(self) -> bool:
        rows = self.recorded
        links = pairwise(rows)
        n_rounds = self.document["spec"]["num_rounds"]
        return len(rows) == n_rounds + 1 and all(
            before["sha256"] in after["parents"] for before, after in links
        )

    def _accuracy_holds(self) -> bool:
        """Reported is the sites' mean, weighted by held-out rows: that is the pooled figure."""
        return all(
            math.isclose(
                one["evaluation"]["accuracy"],
                self.scores[one["checkpoint_sha256"]].pooled.accuracy,
                abs_tol=1e-6,
            )
            for one in self.rounds
        )

    def _folds_hold(self) -> bool:
        identity = self.federation["federation_id"]
        return all(
            self.api.post(f"/artifacts/{identity}/{number}/verify", patience=120)["identical"]
            for number in range(len(self.rounds) + 1)
        )

    def _is_trained(self) -> bool:
        app = self.document["spec"]["app"].removeprefix("builtin:")
        first = self.scores[self.recorded[0]["sha256"]].pooled
        last = self.scores[self.final["sha256"]].pooled
        return last.accuracy >= FLOORS[app] and last.loss < first.loss


def _table(*columns: str) -> Table:
    table = Table(*columns, box=None, pad_edge=True, header_style="dim")
    for column in table.columns[1:]:
        column.justify = "right"
    return table


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _spread(scores: list[Any]) -> tuple[str, str]:
    return spread([one.accuracy for one in scores]), spread([one.auroc for one in scores])
