"""lora: the model, the data, and how one node trains and tests."""

import json
import math
from pathlib import Path

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.utils.data import DataLoader, TensorDataset

# age sex cp trestbps chol fbs restecg thalch exang oldpeak slope ca thal
MEAN = torch.tensor([53.5, 0.8, 3.3, 132.0, 247.0, 0.17, 0.6, 138.0, 0.4, 0.9, 1.8, 0.7, 5.1])
STD = torch.tensor([9.4, 0.4, 0.9, 18.5, 58.0, 0.37, 0.8, 26.0, 0.5, 1.1, 0.6, 0.9, 1.9])


class LoRALinear(nn.Linear):
    """A frozen layer and a step of low rank beside it (Hu et al. 2021, section 4.1)."""

    def __init__(self, n_in, n_out, rank=4, alpha=8):
        super().__init__(n_in, n_out)
        self.weight.requires_grad_(False)
        self.bias.requires_grad_(False)
        self.lora_a = nn.Parameter(torch.empty(rank, n_in))
        self.lora_b = nn.Parameter(torch.zeros(n_out, rank))
        nn.init.kaiming_uniform_(self.lora_a, a=math.sqrt(5))
        self.scale = alpha / rank

    def forward(self, x):
        return super().forward(x) + self.scale * (x @ self.lora_a.T @ self.lora_b.T)


class Net(nn.Module):
    """Wide hidden layers that stay as they are; their adapters and the head are trained."""

    def __init__(self):
        super().__init__()
        self.fc1 = LoRALinear(13, 256)
        self.fc2 = LoRALinear(256, 256)
        self.head = nn.Linear(256, 2)

    def forward(self, x):
        return self.head(F.relu(self.fc2(F.relu(self.fc1(x)))))


def load_data(data_path, batch_size):
    """The node's training and test records."""
    trainset = load_file(Path(data_path) / "train.jsonl")
    testset = load_file(Path(data_path) / "test.jsonl")
    trainloader = DataLoader(trainset, batch_size=batch_size, shuffle=True)
    return trainloader, DataLoader(testset, batch_size=batch_size)


def load_file(path):
    """What nobody measured is taken to be average."""
    rows = [json.loads(line) for line in path.read_text().splitlines() if line]
    unknown = float("nan")
    features = torch.tensor(
        [[unknown if value is None else value for value in row["features"]] for row in rows]
    )
    labels = torch.tensor([row["label"] for row in rows])
    return TensorDataset(torch.nan_to_num((features - MEAN) / STD), labels)


def train(net, trainloader, epochs, lr):
    """Train what is trainable."""
    optimizer = torch.optim.SGD([p for p in net.parameters() if p.requires_grad], lr=lr)
    net.train()
    running_loss = 0.0
    for _ in range(epochs):
        for features, labels in trainloader:
            optimizer.zero_grad()
            loss = F.cross_entropy(net(features), labels)
            loss.backward()
            optimizer.step()
            running_loss += loss.item()
    return running_loss / (len(trainloader) * epochs)


def test(net, testloader):
    """Score the model on the test set."""
    net.eval()
    correct, loss = 0, 0.0
    with torch.no_grad():
        for features, labels in testloader:
            outputs = net(features)
            loss += F.cross_entropy(outputs, labels).item()
            correct += (outputs.argmax(1) == labels).sum().item()
    return loss / len(testloader), correct / len(testloader.dataset)
