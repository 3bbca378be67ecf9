"""ownstrategy: handwritten digits, a small network, one node's part."""

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class Body(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Linear(64, 32), nn.ReLU())


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = Body()
        self.head = nn.Linear(32, 10)

    def forward(self, x):
        return self.head(self.body(x))


def load_data(partition_id: int, num_partitions: int):
    images, labels = load_digits(return_X_y=True)
    images = torch.tensor(images / 16, dtype=torch.float32)[partition_id::num_partitions]
    labels = torch.tensor(labels)[partition_id::num_partitions]
    edge = int(0.8 * len(labels))
    train = TensorDataset(images[:edge], labels[:edge])
    test = TensorDataset(images[edge:], labels[edge:])
    return DataLoader(train, batch_size=32, shuffle=True), DataLoader(test, batch_size=256)


def train(net, loader, epochs, lr):
    optimizer = torch.optim.SGD(net.parameters(), lr=lr, momentum=0.9)
    total = 0.0
    for _ in range(epochs):
        for images, labels in loader:
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(net(images), labels)
            loss.backward()
            optimizer.step()
            total += loss.item()
    return total / (epochs * len(loader))


@torch.no_grad()
def test(net, loader):
    (images, labels), *_ = loader
    outputs = net(images)
    loss = nn.functional.cross_entropy(outputs, labels).item()
    return loss, (outputs.argmax(1) == labels).float().mean().item()
