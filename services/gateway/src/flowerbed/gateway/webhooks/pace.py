"""How patient webhooks are with their receivers."""

import random

from pydantic import BaseModel, ConfigDict, PositiveFloat

DAY = 86_400.0


class Pace(BaseModel):
    """Seconds. `timeout`: of one attempt. `first` and `longest`: between attempts, doubled in
    between. `patience`: how long a webhook may fail before it is disabled."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    timeout: PositiveFloat = 10.0
    first: PositiveFloat = 1.0
    longest: PositiveFloat = 3600.0
    patience: PositiveFloat = 5 * DAY

    def wait(self, n_failures: int) -> float:
        """Before the attempt that follows so many failures; half of it is left to chance."""
        longest = min(self.longest, self.first * 2.0 ** min(n_failures - 1, 40))
        return longest * random.uniform(0.5, 1.0)
