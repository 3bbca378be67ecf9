"""A patient's record becomes the model's input, and what is missing is said to be missing."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowerbed.flower_apps.hospital.features import COLUMNS, FEATURES, WIDTH, Category, encode

NEUTRAL = [55, 0, 1, 130, 200, 0, 0, 140, 0, 1, 1, 1, 3]


def known(column: object) -> st.SearchStrategy[float]:
    if isinstance(column, Category):
        return st.sampled_from(column.codes).map(float)
    return st.floats(-1e6, 1e6)


RECORDS = st.tuples(*(st.none() | known(column) for column in COLUMNS))


def test_features_come_in_the_order_of_the_uci_study() -> None:
    assert FEATURES == (
        "age", "sex", "cp", "trestbps", "chol", "fbs", "restecg",
        "thalch", "exang", "oldpeak", "slope", "ca", "thal",
    )  # fmt: skip


@given(RECORDS)
def test_every_record_has_the_same_width_and_a_flag_for_each_missing_value(
    record: tuple[float | None, ...],
) -> None:
    encoded = encode(record)
    assert len(encoded) == WIDTH
    assert encoded[-len(COLUMNS) :] == [float(value is None) for value in record]


def test_missing_number_is_its_neutral_value_with_its_flag_up() -> None:
    without: list[float | None] = list(NEUTRAL)
    without[FEATURES.index("chol")] = None
    differing = [a != b for a, b in zip(encode(NEUTRAL), encode(without), strict=True)]
    assert [place for place, differs in enumerate(differing) if differs] == [
        WIDTH - len(COLUMNS) + FEATURES.index("chol")
    ]


def test_missing_category_is_none_of_its_codes() -> None:
    nothing = encode([None] * len(COLUMNS))
    assert nothing == [0.0] * (WIDTH - len(COLUMNS)) + [1.0] * len(COLUMNS)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("cp", 9, "cp is 9, known codes are (1, 2, 3, 4)"),
        ("sex", 0.5, "sex is 0.5"),
        ("chol", math.nan, "chol is nan, not a finite number"),
        ("age", math.inf, "age is inf"),
    ],
)
def test_value_that_cannot_be_is_refused(name: str, value: float, said: str) -> None:
    record: list[float | None] = list(NEUTRAL)
    record[FEATURES.index(name)] = value
    with pytest.raises(ValueError) as refused:
        encode(record)
    assert said in str(refused.value)


def test_record_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="12 features, the model wants 13"):
        encode(NEUTRAL[:-1])
