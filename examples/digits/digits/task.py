"""digits: the model, the data, and how one node trains and tests."""

from functools import cache

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch.utils.data import DataLoader, TensorDataset

EXAMPLES = 256
HELD_OUT = 360


class Net(nn.Module):
    """Two layers for 8x8 images."""

    def __init__(self):
        super().__init__()
        self.fc1 = nn.Linear(64, 128)
        self.fc2 = nn.Linear(128, 10)

    def forward(self, x):
        return self.fc2(F.relu(self.fc1(x)))


@cache
def load_all():
    """Every image and its label, in one order for all nodes."""
    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(labels))
    images = torch.tensor(images[order] / 16, dtype=torch.float32)
    return images, torch.tensor(labels[order])


def load_data(partition_id: int, batch_size: int):
    """The node's own draw of training images, with the two digits that it sees most of; and the
    images that nobody trains on."""
    images, labels = load_all()
    draw = np.random.default_rng(partition_id)
    favoured = draw.choice(10, 2, replace=False)
    weights = np.where(np.isin(labels[HELD_OUT:], favoured), 5.0, 1.0)
    mine = HELD_OUT + draw.choice(len(weights), EXAMPLES, replace=False, p=weights / weights.sum())
    trainset = TensorDataset(images[mine], labels[mine])
    testset = TensorDataset(images[:HELD_OUT], labels[:HELD_OUT])
    loader = DataLoader(trainset, batch_size=batch_size, shuffle=True)
    return loader, DataLoader(testset, batch_size=HELD_OUT)


def train(net, trainloader, epochs, lr):
    """Train the model on the training set."""
    optimizer = torch.optim.SGD(net.parameters(), lr=lr, momentum=0.9)
    net.train()
    total = 0.0
    for _ in range(epochs):
        for images, labels in trainloader:
            optimizer.zero_grad()
            loss = F.cross_entropy(net(images), labels)
            loss.backward()
            optimizer.step()
            total += loss.item()
    return total / (epochs * len(trainloader))


def test(net, testloader):
    """Loss and accuracy on the test set."""
    net.eval()
    with torch.no_grad():
        images, labels = next(iter(testloader))
        outputs = net(images)
        accuracy = (outputs.argmax(1) == labels).float().mean().item()
        return F.cross_entropy(outputs, labels).item(), accuracy
