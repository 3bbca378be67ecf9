"""Safetensors files: what is read, what is refused, and that ours equal the library's."""

import json
import struct
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save, save_file

from flowerbed.aggregator.tensors import (
    BLOCK,
    DtypeNotFolded,
    NotSafetensors,
    TensorFile,
    write,
)
from tests.support.models import Model

TENSORS: Model = {
    "z.weight": np.arange(BLOCK + 7, dtype=np.float32).reshape(1, -1),
    "a.bias": np.array(3.5, dtype=np.float32),
    "steps": np.array([2**60], dtype=np.int64),
    "half": np.ones((2, 3), dtype=np.float16),
    "double": np.full((4,), 0.1, dtype=np.float64),
    "bytes": np.arange(5, dtype=np.uint8),
    "none": np.empty((0, 3), dtype=np.float32),
    "größe": np.ones(1, dtype=np.int32),
}


def stored(tmp_path: Path) -> Path:
    path = tmp_path / "model.safetensors"
    save_file(TENSORS, path)
    return path


def test_every_tensor_is_read_whole_and_in_blocks(tmp_path: Path) -> None:
    with TensorFile(stored(tmp_path)) as file:
        assert set(file.tensors) == set(TENSORS)
        for name, array in TENSORS.items():
            np.testing.assert_array_equal(file.read(name), array)
            blocks = [block.copy() for block in file.blocks(name)]
            assert all(block.size <= BLOCK for block in blocks)
            joined = np.concatenate(blocks) if blocks else np.empty(0, array.dtype)
            np.testing.assert_array_equal(joined, array.reshape(-1))


def test_what_we_write_equals_what_the_library_writes(tmp_path: Path) -> None:
    with TensorFile(stored(tmp_path)) as file:
        ours = tmp_path / "ours.safetensors"
        _, size = write(ours, file.tensors, lambda tensor: file.blocks(tensor.name))
    assert ours.read_bytes() == save(TENSORS)
    assert size == ours.stat().st_size


def with_header(header: object, data: bytes = b"") -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"short",
        b"\xff" * 64,
        struct.pack("<Q", 2) + b"[]",
        struct.pack("<Q", 100_000_001) + b"{}",
        with_header({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}, b"\0" * 7),
        with_header({"a": {"dtype": "F32", "shape": [3], "data_offsets": [0, 8]}}, b"\0" * 8),
        with_header({"a": {"dtype": "F32", "shape": [2], "data_offsets": [8, 16]}}, b"\0" * 16),
        with_header({"a": {"dtype": "NO", "shape": [2], "data_offsets": [0, 8]}}, b"\0" * 8),
    ],
)
def test_a_malformed_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "bad"
    path.write_bytes(content)
    with pytest.raises(NotSafetensors, match="not a safetensors file"):
        TensorFile(path)


def test_a_type_that_has_no_mean_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bool"
    save_file({"mask": np.array([True])}, path)
    with pytest.raises(DtypeNotFolded, match="mask has dtype BOOL"):
        TensorFile(path)


def test_a_file_that_is_cut_while_it_is_read_is_refused(tmp_path: Path) -> None:
    path = stored(tmp_path)
    with TensorFile(path) as file, pytest.raises(NotSafetensors, match="became shorter"):
        path.write_bytes(path.read_bytes()[:-BLOCK])
        file.read("z.weight")
        file.read("bytes")
