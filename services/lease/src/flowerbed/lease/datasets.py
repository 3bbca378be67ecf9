"""Whether a site's dataset may take part, by its anonymous label and digest alone."""

from flowerbed.contracts.spec import DatasetSpec
from flowerbed.contracts.values import DatasetRef
from flowerbed.events.errors import Rejected


class DatasetNotAdmitted(Rejected):
    code = "dataset-not-admitted"
    status = 403


def admit(wanted: DatasetSpec, dataset: DatasetRef) -> None:
    """An empty list of the spec admits any.

    Raises:
        DatasetNotAdmitted: the spec names tasks, labels or digests, and not this dataset's.
    """
    if wanted.uris and not any(_is_of_task(dataset.label, uri) for uri in wanted.uris):
        raise DatasetNotAdmitted(f"dataset {dataset.label} is of none of {', '.join(wanted.uris)}")
    if wanted.shards and dataset.label not in wanted.shards:
        raise DatasetNotAdmitted(f"dataset {dataset.label} is none of the federation's shards")
    if wanted.hashes and dataset.sha256 not in wanted.hashes:
        raise DatasetNotAdmitted(
            f"dataset sha256 {dataset.sha256} is none of the {len(wanted.hashes)} admitted"
        )


def _is_of_task(label: str, uri: str) -> bool:
    """A label is `<task>-<uuid>`; a uuid has 36 characters."""
    return label[:-37] == uri.removeprefix("local:")
