"""oldstyle: softmax regression on digits."""

import numpy as np
from sklearn.datasets import load_digits


def load_data(partition_id: int, num_partitions: int):
    images, labels = load_digits(return_X_y=True)
    mine = np.arange(len(labels)) % num_partitions == partition_id
    images, labels = images[mine] / 16.0, labels[mine]
    edge = int(0.8 * len(labels))
    return (images[:edge], labels[:edge]), (images[edge:], labels[edge:])


def new_weights():
    return [np.zeros((64, 10)), np.zeros(10)]


def probabilities(weights, images):
    scores = images @ weights[0] + weights[1]
    scores = np.exp(scores - scores.max(axis=1, keepdims=True))
    return scores / scores.sum(axis=1, keepdims=True)


def train(weights, images, labels, learning_rate, rng):
    matrix, bias = (array.copy() for array in weights)
    for batch in np.array_split(rng.permutation(len(labels)), 20):
        error = probabilities([matrix, bias], images[batch]) - np.eye(10)[labels[batch]]
        matrix -= learning_rate * images[batch].T @ error / len(batch)
        bias -= learning_rate * error.mean(axis=0)
    return [matrix, bias]


def test(weights, images, labels):
    found = probabilities(weights, images)
    loss = -np.log(found[np.arange(len(labels)), labels] + 1e-9).mean()
    return float(loss), float((found.argmax(axis=1) == labels).mean())
