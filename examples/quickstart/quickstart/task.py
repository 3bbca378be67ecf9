"""quickstart: the model, the data, and how one node trains and tests."""

import json
from pathlib import Path

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.utils.data import DataLoader, TensorDataset

# age sex cp trestbps chol fbs restecg thalch exang oldpeak slope ca thal
MEAN = torch.tensor([53.5, 0.8, 3.3, 132.0, 247.0, 0.17, 0.6, 138.0, 0.4, 0.9, 1.8, 0.7, 5.1])
STD = torch.tensor([9.4, 0.4, 0.9, 18.5, 58.0, 0.37, 0.8, 26.0, 0.5, 1.1, 0.6, 0.9, 1.9])


class Net(nn.Module):
    """A small network for 13 measurements."""

    def __init__(self):
        super().__init__()
        self.fc1 = nn.Linear(13, 16)
        self.fc2 = nn.Linear(16, 2)

    def forward(self, x):
        return self.fc2(F.relu(self.fc1(x)))


def load_data(data_path: str, batch_size: int):
    """The node's training and test records."""
    trainset = load_file(Path(data_path) / "train.jsonl")
    testset = load_file(Path(data_path) / "test.jsonl")
    trainloader = DataLoader(trainset, batch_size=batch_size, shuffle=True)
    return trainloader, DataLoader(testset, batch_size=batch_size)


def load_file(path: Path) -> TensorDataset:
    """What nobody measured is taken to be average."""
    rows = [json.loads(line) for line in path.read_text().splitlines() if line]
    unknown = float("nan")
    features = torch.tensor(
        [[unknown if value is None else value for value in row["features"]] for row in rows]
    )
    labels = torch.tensor([row["label"] for row in rows])
    return TensorDataset(torch.nan_to_num((features - MEAN) / STD), labels)


def train(net, trainloader, epochs, lr, device):
    """Train the model on the training set."""
    net.to(device)
    criterion = nn.CrossEntropyLoss().to(device)
    optimizer = torch.optim.SGD(net.parameters(), lr=lr, momentum=0.9)
    net.train()
    running_loss = 0.0
    for _ in range(epochs):
        for features, labels in trainloader:
            optimizer.zero_grad()
            loss = criterion(net(features.to(device)), labels.to(device))
            loss.backward()
            optimizer.step()
            running_loss += loss.item()
    return running_loss / (len(trainloader) * epochs)


def test(net, testloader, device):
    """Validate the model on the test set."""
    net.to(device)
    net.eval()
    criterion = nn.CrossEntropyLoss()
    correct, loss = 0, 0.0
    with torch.no_grad():
        for features, labels in testloader:
            outputs = net(features.to(device))
            loss += criterion(outputs, labels.to(device)).item()
            correct += (outputs.argmax(1) == labels.to(device)).sum().item()
    return loss / len(testloader), correct / len(testloader.dataset)
