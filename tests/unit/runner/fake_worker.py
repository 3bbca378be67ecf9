"""Speaks the worker's side of the pipe without an app: its data path says how it behaves."""

import json
import os
import sys
import time

from flowerbed.flower_apps import forking

if forking.FLAG in sys.argv:
    forking.serve(lambda app: None)
hello = json.loads(sys.stdin.readline())
behave, _, count_file = hello["data_path"].partition(":")


def say(document: dict[str, object]) -> None:
    print(json.dumps(document), flush=True)


starts = 0
if count_file:
    with open(count_file, "a+") as file:
        file.write(f"{os.getpid()}\n")
        file.seek(0)
        starts = len(file.readlines())
if behave == "does-not-load":
    say({"kind": "failed", "code": "app-failed", "trace": "ImportError: no module"})
    sys.exit()
say({"kind": "ready"})
for line in sys.stdin:
    request = json.loads(line)
    if behave == "dies" or (behave == "dies-once" and starts == 1):
        os._exit(3)
    if behave == "babbles":
        print("hello world", flush=True)
    if behave == "hangs":
        time.sleep(60)
    if behave == "fails":
        say({"kind": "failed", "code": "bad-reply", "trace": "no arrays"})
    say({"kind": "result", "sha256": None, "metrics": {"seed": request["seed"]}, "seconds": 0.1})
