"""Send the gateway what its own descriptions allow, and what they do not, for a while.

    python -m scripts.fuzz_api --seconds 600                       (or: make fuzz-api)

A stack of its own with a federation in it. schemathesis reads `/openapi.json` (and, where there is
one, the GraphQL schema) and looks for answers of 5xx, answers that are not written down, and
routes that let in whoever has no token. Exit code 0 only if it found none.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import httpx

from flowerbed.cli.api import Api
from flowerbed.embedded.stack import Stack
from flowerbed.embedded.testing import running_stack

ROOT = Path(__file__).resolve().parent.parent
CHECKS = (
    "not_a_server_error", "status_code_conformance", "content_type_conformance",
    "response_headers_conformance", "response_schema_conformance", "unsupported_method",
    "ignored_auth",
)  # fmt: skip
GRAPHQL_CHECKS = ("refusals_have_a_code", "status_code_conformance")
"""GraphQL tells refusals in an answer of 200, which schemathesis by itself takes for failures."""
ENDLESS = r"/live$"
"""Streams that go on until somebody leaves."""
GRAPHQL_SHARE = 4
"""One in so many seconds."""
RATES = dict.fromkeys(("LIMIT_REQUESTS", "LIMIT_COMMANDS", "LIMIT_STRANGERS"), "99999999/second")


def main() -> int:
    options = _options()
    with tempfile.TemporaryDirectory(prefix="flowerbed-fuzz-") as folder:
        home = Path(folder)
        os.environ |= {f"FLOWERBED_GATEWAY_{name}": rate for name, rate in RATES.items()}
        with running_stack(home / "state") as stack:
            spec = (ROOT / "examples" / "hospital.yaml").read_bytes()
            made = Api(stack.gateway_url, stack.api_token).submit(spec, "fuzzed")
            print(f"fuzzing {stack.gateway_url} with federation {made['federation_id']}")
            codes = [_rest(stack, home, options)]
            if _has_graphql(stack):
                codes.append(_graphql(stack, home, options))
            restarts = _restarts(stack)
            if restarts:
                print(f"these ended and were started again: {restarts}", file=sys.stderr)
    return max(*codes, int(bool(restarts)), 0)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=int, default=600, help="how long, all together")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", default="", help="paths that match this, e.g. ^/audit")
    return parser.parse_args()


def _rest(stack: Stack, home: Path, options: argparse.Namespace) -> int:
    seconds = options.seconds
    if _has_graphql(stack):
        seconds -= seconds // GRAPHQL_SHARE
    more = ["--include-path-regex", options.only] if options.only else []
    target = f"{stack.gateway_url}/openapi.json"
    return _run(stack, home, target, CHECKS, seconds, options.seed, more)


def _graphql(stack: Stack, home: Path, options: argparse.Namespace) -> int:
    seconds = options.seconds // GRAPHQL_SHARE
    target = f"{stack.gateway_url}/graphql"
    return _run(stack, home, target, GRAPHQL_CHECKS, seconds, options.seed, [])


def _run(
    stack: Stack, home: Path, target: str, checks: tuple[str, ...], seconds: int, seed: int,
    more: list[str],
) -> int:  # fmt: skip
    """The token is in a file that nobody else reads: arguments are public."""
    configuration = home / "schemathesis.toml"
    configuration.touch(mode=0o600)
    header = json.dumps(f"Bearer {stack.api_token}")
    configuration.write_text(f"headers = {{ Authorization = {header} }}\n")
    program = Path(sys.executable).with_name("schemathesis")
    command = [
        program, "--config-file", configuration, "run", target,
        "--checks", ",".join(checks), "--max-time", str(max(1, seconds)), "--seed", str(seed),
        "--continue-on-failure", "--exclude-path-regex", ENDLESS, "--warnings", "off",
        "--max-redirects", "0", "--request-timeout", "30", *more,
    ]  # fmt: skip
    print(f"--- {target}, {seconds} s", flush=True)
    env = {**os.environ, "SCHEMATHESIS_HOOKS": "scripts.fuzz_graphql", "PYTHONPATH": str(ROOT)}
    return subprocess.run([str(part) for part in command], cwd=home, env=env).returncode


def _has_graphql(stack: Stack) -> bool:
    headers = {"authorization": f"Bearer {stack.api_token}"}
    body = {"query": "{ __typename }"}
    answer = httpx.post(f"{stack.gateway_url}/graphql", json=body, headers=headers)
    return answer.status_code == 200


def _restarts(stack: Stack) -> dict[str, int]:
    """Which processes did not survive it."""
    from flowerbed.embedded.status import read_status

    components = read_status(stack.layout).components
    return {one.name: one.restarts for one in components if one.restarts}


if __name__ == "__main__":
    sys.exit(main())
