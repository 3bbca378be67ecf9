"""The record of one patient, and how it becomes the model's input.

A site keeps its records as JSON lines, `{"features": [...], "label": 0 or 1}`. `features` holds the
thirteen columns of the UCI heart disease study in the study's order and codes, null where nobody
measured; `label` is 1 when an angiogram showed any narrowing (`num` > 0).

    record   [63, 1, 1, 145, 233, null, ...]
    input    numbers, centred and scaled | one place a category's code | one "missing" flag a column

Whole columns are missing at whole hospitals, so a missing value says more about the hospital than
about the patient. It becomes the column's neutral value (0 after scaling, no code for a category)
and its flag becomes 1: the model is told, and learns what absence means. The neutral values are
fixed clinical reference points rather than statistics: a median of one site would give the same
patient another input at another site, a median of all sites would have to travel, and a constant
cannot have seen a held-out row.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Number:
    name: str
    neutral: float
    scale: float

    @property
    def width(self) -> int:
        return 1

    def encode(self, value: float) -> list[float]:
        return [(value - self.neutral) / self.scale]


@dataclass(frozen=True, slots=True)
class Category:
    name: str
    codes: tuple[int, ...]

    @property
    def width(self) -> int:
        return len(self.codes)

    def encode(self, value: float) -> list[float]:
        if value not in self.codes:
            raise ValueError(f"{self.name} is {value:g}, known codes are {self.codes}")
        return [float(value == code) for code in self.codes]


COLUMNS: tuple[Number | Category, ...] = (
    Number("age", neutral=55, scale=10),  # years
    Category("sex", codes=(0, 1)),  # female, male
    Category("cp", codes=(1, 2, 3, 4)),  # typical, atypical, non-anginal, asymptomatic
    Number("trestbps", neutral=130, scale=20),  # mm Hg at rest; 130 is where hypertension begins
    Number("chol", neutral=200, scale=50),  # mg/dl; 200 is the upper desirable limit
    Category("fbs", codes=(0, 1)),  # fasting blood sugar above 120 mg/dl
    Category("restecg", codes=(0, 1, 2)),  # normal, ST-T abnormality, left ventricular hypertrophy
    Number(
        "thalch", neutral=140, scale=25
    ),  # beats/min; 85 % of (220 - 55), an exercise test's aim
    Category("exang", codes=(0, 1)),  # angina on exercise
    Number("oldpeak", neutral=1, scale=1),  # mm ST depression; 1 is where a test is called positive
    Category("slope", codes=(1, 2, 3)),  # up, flat, down
    Number("ca", neutral=1, scale=1),  # major vessels coloured by fluoroscopy, 0 to 3
    Category("thal", codes=(3, 6, 7)),  # normal, fixed defect, reversible defect
)
FEATURES: tuple[str, ...] = tuple(column.name for column in COLUMNS)
WIDTH: int = sum(column.width for column in COLUMNS) + len(COLUMNS)


def encode(features: Sequence[float | None]) -> list[float]:
    """The model's input for one record: every column's places, then every column's missing flag."""
    if len(features) != len(COLUMNS):
        raise ValueError(f"a record has {len(features)} features, the model wants {len(COLUMNS)}")
    values: list[float] = []
    for column, value in zip(COLUMNS, features, strict=True):
        if value is None:
            values += [0.0] * column.width
        elif math.isfinite(value):
            values += column.encode(value)
        else:
            raise ValueError(f"{column.name} is {value}, not a finite number")
    return values + [float(value is None) for value in features]
