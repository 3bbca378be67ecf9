"""SCAFFOLD at a client: control variates correct its steps (Karimireddy et al. 2020, algorithm 1,
option II).

The server's c comes as the message's array record `control`. The client's own c_i stays with the
client, in the state that Flower keeps for it; only how it has changed is answered, as `control`.
"""

import torch
from flwr.app import ArrayRecord, RecordDict
from torch import Tensor, nn

RECORD = "control"
KEPT = "scaffold"


class Control:
    """Of one training. `state` is the context's."""

    def __init__(self, server: ArrayRecord, state: RecordDict) -> None:
        self._server = server.to_torch_state_dict()
        kept = state.array_records.get(KEPT)
        self._own: dict[str, Tensor] = (
            {name: torch.zeros_like(one) for name, one in self._server.items()}
            if kept is None
            else dict(kept.to_torch_state_dict())
        )

    def correct(self, net: nn.Module) -> None:
        """Move each gradient by c - c_i, before the step."""
        for name, weights in net.named_parameters():
            assert weights.grad is not None
            weights.grad += self._server[name] - self._own[name]

    def finish(
        self, before: ArrayRecord, net: nn.Module, n_steps: int, rate: float, state: RecordDict
    ) -> ArrayRecord:
        """Keep the new c_i = c_i - c + (x - y) / (K eta); by how much it has changed."""
        base, trained = before.to_torch_state_dict(), net.state_dict()
        new = {
            name: one - self._server[name] + (base[name] - trained[name]) / (n_steps * rate)
            for name, one in self._own.items()
        }
        state[KEPT] = ArrayRecord(new)
        return ArrayRecord({name: one - self._own[name] for name, one in new.items()})
