"""From the base checkpoint to the newest one, by parents' digests. Pure."""

from collections.abc import Mapping, Sequence

from flowerbed.gateway.views import Artifact, Folded, Lineage, LineageNode


def lineage(
    federation_id: str,
    artifacts: Sequence[Artifact],
    folded: Mapping[tuple[int, int], Sequence[Folded]],
) -> Lineage:
    """`folded`: the updates inside each checkpoint, by round and attempt."""
    checkpoints = sorted(
        (artifact for artifact in artifacts if artifact.kind in ("base", "checkpoint")),
        key=lambda artifact: (artifact.round_number, artifact.attempt),
    )
    nodes = [_node(artifact, folded) for artifact in checkpoints]
    return Lineage(federation_id=federation_id, is_complete=_complete(nodes), checkpoints=nodes)


def _node(artifact: Artifact, folded: Mapping[tuple[int, int], Sequence[Folded]]) -> LineageNode:
    updates = folded.get((artifact.round_number, artifact.attempt), ())
    return LineageNode(**artifact.model_dump(), folded=list(updates))


def _complete(nodes: Sequence[LineageNode]) -> bool:
    """One base, and every other checkpoint made from one that came before it."""
    if not nodes or nodes[0].kind != "base":
        return False
    known = {nodes[0].sha256}
    for node in nodes[1:]:
        if not node.parents or not known.issuperset(node.parents):
            return False
        known.add(node.sha256)
    return True
