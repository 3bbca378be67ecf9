"""For schemathesis: values of our own scalars, and what must never be in a GraphQL answer.

A refusal is an answer: `errors` with a code that REST has too. `internal-error` is none, nor is an
error of a resolver without a code. `python -m scripts.fuzz_api` loads this.
"""

from typing import Any

import schemathesis
from hypothesis import strategies as st
from schemathesis.graphql import nodes

_DOCUMENTS = ("{}", "spec: {}", "a: 1", "[", '{"app": "builtin:hospital"}', "\t", "&a *a")

schemathesis.graphql.scalar("Long", st.integers(min_value=-5, max_value=2**65).map(nodes.Int))
schemathesis.graphql.scalar("DateTime", st.just(nodes.String("2026-01-01T00:00:00Z")))
schemathesis.graphql.scalar(
    "JSON",
    st.one_of(
        st.sampled_from(_DOCUMENTS).map(nodes.String),
        st.integers().map(nodes.Int),
        st.booleans().map(nodes.Boolean),
    ),
)


@schemathesis.check
def refusals_have_a_code(ctx: Any, response: Any, case: Any) -> None:
    assert response.status_code < 500, response.text
    for error in response.json().get("errors", ()):
        code = (error.get("extensions") or {}).get("code")
        assert code != "internal-error", error
        assert code is not None or "path" not in error, error
