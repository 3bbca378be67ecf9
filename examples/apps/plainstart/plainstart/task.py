"""plainstart: the data of one node, and its model."""

import warnings

import numpy as np
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler


def load_data(partition_id: int, num_partitions: int):
    features, labels = load_breast_cancer(return_X_y=True)
    features = StandardScaler().fit_transform(features)
    mine = np.arange(len(labels)) % num_partitions == partition_id
    features, labels = features[mine], labels[mine]
    edge = int(0.8 * len(labels))
    return features[:edge], features[edge:], labels[:edge], labels[edge:]


def create_model(penalty: str, local_epochs: int) -> LogisticRegression:
    model = LogisticRegression(
        C={"l2": 1.0}[penalty], max_iter=5 * local_epochs, warm_start=True, random_state=0
    )
    model.classes_ = np.array([0, 1])
    set_parameters(model, [np.zeros((1, 30)), np.zeros(1)])
    return model


def get_parameters(model: LogisticRegression):
    return [model.coef_, model.intercept_]


def set_parameters(model: LogisticRegression, parameters) -> None:
    model.coef_, model.intercept_ = (array.copy() for array in parameters)


def fit(model: LogisticRegression, features, labels) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # few iterations are wanted
        model.fit(features, labels)
