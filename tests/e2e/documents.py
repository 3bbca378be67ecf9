"""FederationSpecs of the end-to-end tests."""

from typing import Any


def hospital(**spec: Any) -> dict[str, Any]:
    """Four hospitals of tenant acme; a short federation unless told otherwise."""
    return {
        "apiVersion": "flowerbed/v1",
        "metadata": {"name": "hearts", "tenant": "acme"},
        "spec": {
            "app": "builtin:hospital",
            "model_ref": {"uri": "builtin:hospital"},
            "num_rounds": 3,
            "min_clients": 4,
            "train": {"local_epochs": 2, "learning_rate": 0.02, "seed": 11},
            "client_selector": {"tags": ["hospital"]},
            "dataset_spec": {"uris": ["local:hospital"]},
            "lease": {"ttl_seconds": 60},
            **spec,
        },
    }


def synthetic(seconds: float, *, elements: int = 1000, **spec: Any) -> dict[str, Any]:
    """The same with an app that sleeps `seconds` where others train, however busy the machine."""
    train = {"seed": 5, "elements": elements, "tensors": 4, "train_seconds": seconds}
    return hospital(
        app="builtin:synthetic",
        model_ref={"uri": "builtin:synthetic"},
        train=train,
        dataset_spec={},
        **spec,
    )
