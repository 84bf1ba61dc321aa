"""python3 demo.py [COMMAND...]: what the sidecar does for a program in Python. COMMAND is `treeline` if left out."""

import os
import sys
import tempfile
import time

from treeline_sidecar import Sidecar, SidecarError

# Ignores SIGTERM, and starts a daemon that has left its environment and, where there is setsid(1), group and session.
STUBBORN = """
trap '' TERM
echo $$ >>"$1"
sh -c 'trap "" TERM; echo $$ >>"$0"; exec sleep 600' "$1" &
env -i PATH="$PATH" $(command -v setsid) sh -c 'echo $$ >>"$0"; exec sleep 600' "$1" </dev/null >/dev/null 2>&1 &
while [ "$(wc -l <"$1")" -lt 3 ]; do sleep 0.01; done
echo ready
while :; do sleep 600; done
"""


def lives(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    try:  # a zombie is not alive
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return not os.path.isdir("/proc/self")


def main(command):
    with Sidecar(command, grace="500ms") as sidecar:
        print(f"treeline {sidecar.welcome['version']}, containment: {sidecar.welcome['level']}")

        counting = sidecar.spawn(["sh", "-c", "for n in 1 2 3; do echo line $n; done; exit 7"])
        print("output:", *counting.lines(), sep="\n  ")
        print("ended: ", counting.exited())

        upper = sidecar.spawn(["tr", "a-z", "A-Z"], stdin="pipe")
        upper.write("from stdin to stdout\n".encode(), end=True)
        print("echo:  ", upper.read().decode().strip())

        try:
            sidecar.spawn(["no-such-program", "--password=secret"])
        except SidecarError as error:
            print("error: ", error.tag, error.data["reason"])

        with tempfile.NamedTemporaryFile("r") as report:
            stubborn = sidecar.spawn(["sh", "-c", STUBBORN, "sh", report.name])
            next(stubborn.lines())
            pids = [int(pid) for pid in report.read().split()]
            print(f"tree:   {len(pids)} processes, {sum(map(lives, pids))} live")
            started = time.monotonic()
            stubborn.cancel()
            took = time.monotonic() - started
            print(f"cancel: {stubborn.exited()['signal']}, {sum(map(lives, pids))} live, after the grace time: {0.5 <= took < 5}")
            print("left:  ", stubborn.empty())

        sidecar.spawn(["sleep", "600"])
    print("closed: nothing is left, nobody had to wait")


if __name__ == "__main__":
    main(sys.argv[1:] or ["treeline"])
