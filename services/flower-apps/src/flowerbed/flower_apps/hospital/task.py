"""The model, its data, and how one hospital trains and evaluates it.

The same arrays, settings and rows give the same bytes on one machine: one thread, a generator of
our own for the order of rows, float32 throughout, and no layer that keeps statistics.
"""

import json
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from flwr.app import ArrayRecord
from opentelemetry import trace
from torch import Tensor, nn

from .checkpoint import Checkpoints, name_of
from .features import WIDTH, encode
from .scaffold import Control

MOMENTUM = 0.9
WEIGHT_DECAY = 1e-3

tracer = trace.get_tracer(__name__)


class Net(nn.Module):
    """One hidden layer, one logit: large enough for interactions, small enough for 85 rows."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = nn.Linear(WIDTH, 16)
        self.output = nn.Linear(16, 1)

    def forward(self, inputs: Tensor) -> Tensor:
        logits: Tensor = self.output(torch.relu(self.hidden(inputs)))
        return logits.squeeze(1)


@dataclass(frozen=True, slots=True)
class Rows:
    inputs: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What the server decides about one client's training in one round."""

    local_epochs: int
    batch_size: int
    learning_rate: float
    seed: int
    proximal_mu: float = 0.0

    def n_steps(self, n_examples: int) -> int:
        return self.local_epochs * math.ceil(n_examples / self.batch_size)

    @classmethod
    def read(cls, config: Mapping[str, object]) -> "Settings":
        return cls(
            local_epochs=int(str(config["local-epochs"])),
            batch_size=int(str(config["batch-size"])),
            learning_rate=float(str(config["learning-rate"])),
            seed=int(str(config["seed"])),
            proximal_mu=float(str(config.get("proximal-mu", 0.0))),
        )


def initial_arrays(run_config: dict[str, bool | float | int | str]) -> ArrayRecord:
    """The model every site starts from; the same seed gives the same bytes."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(run_config["seed"]))
        return ArrayRecord(Net().state_dict())


def load_net(arrays: ArrayRecord) -> Net:
    net = Net()
    net.load_state_dict(arrays.to_torch_state_dict())
    return net


def load_rows(path: Path) -> Rows:
    records = [json.loads(line) for line in path.read_text().splitlines() if line.strip()]
    if not records:
        raise ValueError(f"{path.name} holds no record")
    return Rows(
        inputs=torch.tensor([encode(record["features"]) for record in records]),
        labels=torch.tensor([float(record["label"]) for record in records]),
    )


def train(
    net: Net,
    rows: Rows,
    settings: Settings,
    kept_in: Path | None = None,
    control: Control | None = None,
) -> float:
    """Train `net` in place; answer the mean loss of its last pass over the rows.

    With a proximal mu, the objective is equation 2 of FedProx (Li et al., 2020): the loss plus
    mu / 2 times the squared distance to the weights that came in. SCAFFOLD's steps are plain ones.
    """
    _be_deterministic(settings.seed)
    order = torch.Generator().manual_seed(settings.seed)
    received = [weights.detach().clone() for weights in net.parameters()]
    optimizer = torch.optim.SGD(
        net.parameters(),
        lr=settings.learning_rate,
        momentum=MOMENTUM if control is None else 0.0,
        weight_decay=WEIGHT_DECAY,
    )
    criterion = nn.BCEWithLogitsLoss()
    checkpoints = Checkpoints(kept_in, name_of(settings, net.state_dict()))
    done, total = checkpoints.restore(net, optimizer, order)
    net.train()
    for epoch in range(done, settings.local_epochs):
        with tracer.start_as_current_span("epoch", attributes={"epoch": epoch + 1}):
            total = 0.0
            shuffled = torch.randperm(len(rows), generator=order)
            for batch in torch.split(shuffled, settings.batch_size):
                optimizer.zero_grad()
                loss = criterion(net(rows.inputs[batch]), rows.labels[batch])
                total += loss.item() * len(batch)
                if settings.proximal_mu > 0:
                    loss = loss + settings.proximal_mu / 2 * _squared_distance(net, received)
                loss.backward()
                if control is not None:
                    control.correct(net)
                optimizer.step()
        checkpoints.keep(epoch + 1, total, net, optimizer, order)
    return total / len(rows)


def label_entropy(rows: Rows) -> float:
    """How evenly the labels are spread, in nats (Shannon 1948): 0 where all are the same."""
    shares = [n / len(rows) for n in Counter(rows.labels.tolist()).values()]
    return math.fsum(share * -math.log(share) for share in shares)


def evaluate(net: Net, rows: Rows) -> dict[str, float]:
    """Loss and accuracy; AUROC only where both classes are present, since it compares them."""
    _be_deterministic(0)
    net.eval()
    with torch.no_grad():
        logits = net(rows.inputs)
        loss = nn.functional.binary_cross_entropy_with_logits(logits, rows.labels)
    metrics = {
        "eval-loss": loss.item(),
        "accuracy": ((logits > 0) == (rows.labels > 0)).float().mean().item(),
    }
    if 0 < rows.labels.sum() < len(rows):
        metrics["auroc"] = auroc(logits, rows.labels)
    return metrics


def auroc(scores: Tensor, labels: Tensor) -> float:
    """How often a diseased patient scores above a healthy one, a tie counting half."""
    ahead = scores[labels > 0].unsqueeze(1) - scores[labels == 0].unsqueeze(0)
    return ((ahead > 0).double() + (ahead == 0).double() / 2).mean().item()


def _squared_distance(net: Net, received: list[Tensor]) -> Tensor:
    pairs = zip(net.parameters(), received, strict=True)
    return torch.stack([(weights - before).square().sum() for weights, before in pairs]).sum()


def _be_deterministic(seed: int) -> None:
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(seed)
