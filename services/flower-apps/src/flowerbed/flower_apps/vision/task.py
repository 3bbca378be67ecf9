"""The model, its data, and how one site trains and evaluates it.

A site keeps `train.npz` and `test.npz`: `images` uint8 [n, 28, 28] and `labels` uint8 [n], 0 to 9.

The same arrays, settings and images give the same bytes on one machine: one thread, a generator of
our own for the order of images, float32 throughout, and no layer that keeps statistics.
"""

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from flwr.app import ArrayRecord
from opentelemetry import trace
from torch import Tensor, nn

from .checkpoint import Checkpoints, name_of
from .scaffold import Control

SIZE = 28
MOMENTUM = 0.9
EVALUATED_AT_ONCE = 256

tracer = trace.get_tracer(__name__)


class Net(nn.Module):
    """Two convolutions and one hidden layer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 8, 5, padding=2)
        self.conv2 = nn.Conv2d(8, 16, 5, padding=2)
        self.hidden = nn.Linear(16 * (SIZE // 4) ** 2, 64)
        self.output = nn.Linear(64, 10)

    def forward(self, inputs: Tensor) -> Tensor:
        seen = nn.functional.max_pool2d(torch.relu(self.conv1(inputs)), 2)
        seen = nn.functional.max_pool2d(torch.relu(self.conv2(seen)), 2)
        logits: Tensor = self.output(torch.relu(self.hidden(seen.flatten(1))))
        return logits


class LeNet(nn.Module):
    """The `simple-cnn` of NIID-Bench (Li et al., 2022, section 5): 5x5 convolutions with 6 and 16
    channels, hidden layers of 120 and 84."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 6, 5)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.fc1 = nn.Linear(16 * 4**2, 120)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, 10)

    def forward(self, inputs: Tensor) -> Tensor:
        seen = nn.functional.max_pool2d(torch.relu(self.conv1(inputs)), 2)
        seen = nn.functional.max_pool2d(torch.relu(self.conv2(seen)), 2)
        hidden = torch.relu(self.fc2(torch.relu(self.fc1(seen.flatten(1)))))
        logits: Tensor = self.fc3(hidden)
        return logits


ARCHITECTURES: dict[str, type[nn.Module]] = {"small": Net, "lenet": LeNet}


@dataclass(frozen=True, slots=True)
class Images:
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
    weight_decay: float = 0.0

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
            weight_decay=float(str(config.get("weight-decay", 0.0))),
        )


def initial_arrays(run_config: dict[str, bool | float | int | str]) -> ArrayRecord:
    """The model every site starts from; the same seed gives the same bytes.

    Raises:
        ValueError: no architecture has that name.
    """
    wanted = str(run_config.get("architecture", "small"))
    if wanted not in ARCHITECTURES:
        raise ValueError(f"architecture {wanted!r}: one of {', '.join(ARCHITECTURES)}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(run_config["seed"]))
        return ArrayRecord(ARCHITECTURES[wanted]().state_dict())


def load_net(arrays: ArrayRecord) -> nn.Module:
    """The architecture that the arrays are of, with these arrays."""
    net = LeNet() if "fc1.weight" in arrays else Net()
    net.load_state_dict(arrays.to_torch_state_dict())
    return net


def load_images(path: Path) -> Images:
    with np.load(path, allow_pickle=False) as file:
        images, labels = file["images"], file["labels"]
    if not len(labels):
        raise ValueError(f"{path.name} holds no image")
    if images.shape != (len(labels), SIZE, SIZE):
        raise ValueError(f"images are {images.shape}, the model wants {(len(labels), SIZE, SIZE)}")
    return Images(
        inputs=(torch.from_numpy(images).float() / 127.5 - 1).unsqueeze(1),
        labels=torch.from_numpy(labels).long(),
    )


def train(
    net: nn.Module,
    images: Images,
    settings: Settings,
    kept_in: Path | None = None,
    control: Control | None = None,
) -> float:
    """Train `net` in place; answer the mean loss of its last pass over the images.

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
        weight_decay=settings.weight_decay,
        fused=True,  # one pass over the weights instead of four
    )
    criterion = nn.CrossEntropyLoss()
    checkpoints = Checkpoints(kept_in, name_of(settings, net.state_dict()))
    done, total = checkpoints.restore(net, optimizer, order)
    net.train()
    for epoch in range(done, settings.local_epochs):
        with tracer.start_as_current_span("epoch", attributes={"epoch": epoch + 1}):
            total = 0.0
            shuffled = torch.randperm(len(images), generator=order)
            for batch in torch.split(shuffled, settings.batch_size):
                optimizer.zero_grad()
                loss = criterion(net(images.inputs[batch]), images.labels[batch])
                total += loss.item() * len(batch)
                if settings.proximal_mu > 0:
                    loss = loss + settings.proximal_mu / 2 * _squared_distance(net, received)
                loss.backward()
                if control is not None:
                    control.correct(net)
                optimizer.step()
        checkpoints.keep(epoch + 1, total, net, optimizer, order)
    return total / len(images)


def label_entropy(images: Images) -> float:
    """How evenly the labels are spread, in nats (Shannon 1948): 0 where all are the same."""
    shares = [n / len(images) for n in Counter(images.labels.tolist()).values()]
    return math.fsum(share * -math.log(share) for share in shares)


def evaluate(net: nn.Module, images: Images) -> dict[str, float]:
    """Loss and accuracy over all images, a part at a time to keep memory small."""
    _be_deterministic(0)
    net.eval()
    loss, right = 0.0, 0
    with torch.no_grad():
        for part in torch.split(torch.arange(len(images)), EVALUATED_AT_ONCE):
            logits, labels = net(images.inputs[part]), images.labels[part]
            loss += nn.functional.cross_entropy(logits, labels, reduction="sum").item()
            right += int((logits.argmax(1) == labels).sum())
    return {"eval-loss": loss / len(images), "accuracy": right / len(images)}


def _squared_distance(net: nn.Module, received: list[Tensor]) -> Tensor:
    pairs = zip(net.parameters(), received, strict=True)
    return torch.stack([(weights - before).square().sum() for weights, before in pairs]).sum()


def _be_deterministic(seed: int) -> None:
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(seed)
