"""Start a program from Python so that its whole process tree ends with the caller.

The caller holds the write end of a pipe, the lifeline. When it lets go of it, by closing it or by dying in any way,
`treeline guard` ends the program and everything that descends from it. Nothing but the standard library is needed.

    from treeline_guard import launch_with_lifeline

    code = launch_with_lifeline(["./server", "--port", "80"], wait=True)

    server = launch_with_lifeline(["./server"], wait=False)   # returns when it runs, or raises LaunchError
    ...
    server.close()                                            # SIGTERM, 5 s, SIGKILL: the whole tree
"""

import json
import math
import os
import subprocess

LIFECYCLE_OWNED = ("close_fds", "pass_fds", "preexec_fn", "process_group", "start_new_session")
STDIO = ("stdin", "stdout", "stderr")


class LaunchError(Exception):
    """The program was not started; nothing of it runs."""


class Guarded:
    """A program under guard."""

    def __init__(self, process, lifeline):
        self._process = process
        self._lifeline = lifeline

    @property
    def guard_pid(self):
        """The pid of the guard, not of the program."""
        return self._process.pid

    def wait(self, timeout=None):
        """The program's exit code: 128 + N when signal N ended it, 2 also when its tree could not be ended."""
        return self._process.wait(timeout)

    def terminate(self):
        """Lets go of the lifeline: the tree ends. Returns at once."""
        if self._lifeline is not None:
            os.close(self._lifeline)
            self._lifeline = None

    def close(self):
        """Ends the tree and returns the program's exit code."""
        self.terminate()
        return self.wait()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def check_grace(seconds):
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)):
        raise TypeError("termination_grace_period must be a number of seconds")
    if not math.isfinite(seconds) or seconds < 0:
        raise ValueError("termination_grace_period must be finite and not negative")


def encode_popen_kwargs(popen_kwargs):
    """What the guard can be told about the program: cwd, env, and stdio that is inherited or devnull."""
    encoded = {}
    for name, value in (popen_kwargs or {}).items():
        if not isinstance(name, str):
            raise TypeError("names of popen_kwargs must be strings")
        if name in LIFECYCLE_OWNED:
            raise ValueError(f"{name} is set by the guard and can't be overridden")
        if name in STDIO:
            if value is None:
                continue
            if value != subprocess.DEVNULL:
                raise ValueError(f"{name} must be None or subprocess.DEVNULL")
            value = "devnull"
        elif name == "cwd" and value is not None:
            value = os.fspath(value)
        elif name == "env" and value is not None:
            value = dict(value)
        encoded[name] = value
    return encoded


def write_all(fd, data):
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view):]


def read_all(fd):
    chunks = []
    while chunk := os.read(fd, 65536):
        chunks.append(chunk)
    return b"".join(chunks)


def launch_with_lifeline(command, *, wait, popen_kwargs=None, termination_grace_period=5.0, guard=("treeline",)):
    """Starts `command` under guard.

    With `wait` it returns the program's exit code, else a `Guarded`; in both cases the launch has been confirmed before,
    or a LaunchError says why not. The command reaches the guard by a pipe, so nothing of it is in the guard's arguments.
    """
    check_grace(termination_grace_period)
    config = json.dumps({"command": list(command), "popen_kwargs": encode_popen_kwargs(popen_kwargs)}).encode()

    lifeline_read, lifeline_write = os.pipe()
    config_read, config_write = os.pipe()
    status_read, status_write = os.pipe()
    ours, theirs = [lifeline_write, config_write, status_read], [lifeline_read, config_read, status_write]
    process = None
    try:
        process = subprocess.Popen(
            [
                *guard,
                "guard",
                f"--lifeline-fd={lifeline_read}",
                f"--config-fd={config_read}",
                f"--status-fd={status_write}",
                f"--termination-grace-period={termination_grace_period}",
            ],
            pass_fds=theirs,
        )
        while theirs:
            os.close(theirs.pop())
        try:
            write_all(config_write, config)
        except BrokenPipeError:
            pass  # it has ended before it read everything; the status says why, or that there is none
        ours.remove(config_write)
        os.close(config_write)
        status = read_all(status_read)
        ours.remove(status_read)
        os.close(status_read)
        try:
            report = json.loads(status)
        except ValueError:
            raise LaunchError("the guard exited before reporting") from None
        if not report["ok"]:
            raise LaunchError(report["error"])
        ours.remove(lifeline_write)
        guarded = Guarded(process, lifeline_write)
    except BaseException:
        for fd in ours + theirs:
            os.close(fd)
        if process is not None:
            # Its lifeline has ended, so it ends by itself; one that does not is killed, and reaped in any case.
            try:
                process.wait(termination_grace_period + 1)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        raise
    if not wait:
        return guarded
    try:
        return guarded.wait()
    finally:
        guarded.terminate()
