"""The stack may open as many files as the machine allows, up to what many clients need."""

import subprocess
import sys

SCRIPT = """
import resource
from flowerbed.embedded.supervisor import allow_many_files
_, most = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (256, min(most, 4000)))
allow_many_files()
print(*resource.getrlimit(resource.RLIMIT_NOFILE))
allow_many_files()
print(*resource.getrlimit(resource.RLIMIT_NOFILE))
"""


def test_the_soft_limit_is_raised_as_far_as_the_hard_one() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True
    )
    assert done.stdout == "4000 4000\n4000 4000\n"
