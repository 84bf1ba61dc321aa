"""Process trees from Python, through `treeline sidecar`.

Every process that is started here belongs to a tree, and the whole tree ends: when it is cancelled, when the sidecar is
closed, and when this program dies in any way. Nothing but the standard library is needed.

    from treeline_sidecar import Sidecar

    with Sidecar() as sidecar:
        build = sidecar.spawn(["make", "-j8"])
        for line in build.lines():
            print(line)
        print(build.exited())            # {'_tag': 'Exited', 'code': 0}

        server = sidecar.spawn(["./server"], shutdown={"steps": [{"action": "SIGINT", "within": 2000}]})
        ...
        server.cancel()                  # SIGINT, 2 s, SIGKILL: the whole tree; raises if something could not be ended

The protocol is described in docs/sidecar.md. One thread reads what the sidecar says; everything else may be called from
any thread. Output is granted to the sidecar as it is read here, so a program that writes faster than it is read is held
back, and neither side fills its memory.
"""

import base64
import codecs
import itertools
import json
import queue
import subprocess
import threading

PROTOCOL = 1

# Bytes of each output that may be on their way here.
WINDOW = 256 * 1024
# Bytes of input in one request.
PIECE = 256 * 1024


class SidecarError(Exception):
    """What the sidecar refused or could not do: `tag` says what, `data` has the particulars."""

    def __init__(self, error):
        super().__init__(error["message"])
        self.data = error["data"]
        self.tag = self.data["_tag"]


class SidecarGone(Exception):
    """The sidecar has ended, and every tree with it."""


class _Later:
    """A value that comes once."""

    def __init__(self):
        self._come = threading.Event()
        self._value = None

    @property
    def come(self):
        return self._come.is_set()

    def set(self, value):
        if not self._come.is_set():
            self._value = value
            self._come.set()

    def get(self, timeout=None):
        if not self._come.wait(timeout):
            raise TimeoutError
        if isinstance(self._value, Exception):
            raise self._value
        return self._value


class Process:
    """A process of the sidecar, and the tree of which it is the first."""

    def __init__(self, sidecar, number, pid, level):
        self._sidecar = sidecar
        self.number = number
        self.pid = pid
        #: The containment that its tree has.
        self.level = level
        #: Bytes that were dropped because they were read too slowly; only with output={"whenFull": "drop", ...}.
        self.lost = 0
        self._output = {"stdout": queue.SimpleQueue(), "stderr": queue.SimpleQueue()}
        self._exited, self._empty, self._drained = _Later(), _Later(), _Later()

    @property
    def ended(self):
        """Everything about it was told."""
        return self._exited.come and self._empty.come and self._drained.come

    def _event(self, method, params):
        if method == "output":
            self.lost += params.get("lost", 0)
            self._output[params["stream"]].put(base64.b64decode(params["data"]))
        elif method == "end":
            self.lost += params["lost"]
            self._output[params["stream"]].put(None)
        elif method == "exited":
            self._exited.set(params["status"])
        elif method == "empty":
            self._empty.set(params["survivors"])
        elif method == "drained":
            self._drained.set(params)

    def _gone(self, error):
        for later in (self._exited, self._empty, self._drained):
            later.set(error)
        for output in self._output.values():
            output.put(None)

    def chunks(self, stream="stdout"):
        """The bytes of an output as they come, to its end. One reader for each output."""
        output = self._output[stream]
        while (chunk := output.get()) is not None:
            self._sidecar._notify("credit", process=self.number, stream=stream, bytes=len(chunk))
            yield chunk

    def read(self, stream="stdout"):
        """All bytes of an output."""
        return b"".join(self.chunks(stream))

    def lines(self, stream="stdout", encoding="utf-8"):
        """The lines of an output, whole, without their ends."""
        decoder = codecs.getincrementaldecoder(encoding)("replace")
        rest = ""
        for chunk in self.chunks(stream):
            *lines, rest = (rest + decoder.decode(chunk)).split("\n")
            yield from lines
        rest += decoder.decode(b"", True)
        if rest:
            yield rest

    def discard(self, stream="stdout"):
        """Drops what this output has and what will come; it never holds the process up."""
        self._sidecar.request("discard", process=self.number, stream=stream)

    def write(self, data, end=False):
        """Writes bytes to the process started with stdin="pipe"; returns when its pipe has taken them."""
        view = memoryview(data)
        while len(view) > PIECE:
            self._write(view[:PIECE], False)
            view = view[PIECE:]
        self._write(view, end)

    def _write(self, piece, end):
        self._sidecar.request("write", process=self.number, data=base64.b64encode(piece).decode(), end=end)

    def close_stdin(self):
        self.write(b"", end=True)

    def signal(self, name, target="group"):
        """Sends a signal and nothing else; returns how many deliveries the system accepted."""
        return self._sidecar.request("signal", process=self.number, signal=name, target=target)["delivered"]

    def cancel(self, shutdown=None):
        """Ends the whole tree and returns when nothing of it lives; a second call can only make it shorter."""
        plan = {} if shutdown is None else {"shutdown": shutdown}
        self._sidecar.request("cancel", process=self.number, **plan)

    def exited(self, timeout=None):
        """Waits for the end of the first process: {"_tag": "Exited", "code": 0}, {"_tag": "Signaled", ...}."""
        return self._exited.get(timeout)

    def empty(self, timeout=None):
        """Waits until nothing of the tree lives: a list of survivors, empty when all is well."""
        return self._empty.get(timeout)

    def drained(self, timeout=None):
        """Waits until both outputs were read here to their ends."""
        return self._drained.get(timeout)


class Sidecar:
    """A running `treeline sidecar`. Leaving the `with` block ends every tree."""

    def __init__(self, command=("treeline",), *, grace=None, require=None):
        options = [f"--{name}={value}" for name, value in (("grace", grace), ("require", require)) if value is not None]
        # In a session of its own: Ctrl-C is for this program, which decides what becomes of its trees.
        self._child = subprocess.Popen(
            [*command, "sidecar", *options], stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
        )
        self._ids = itertools.count(1)
        self._lock = threading.Lock()  # for what follows
        self._waiting = {}
        self._processes = {}
        self._over = None
        self._writing = threading.Lock()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        try:
            #: Version, pid, platform, containment and limits of the sidecar.
            self.welcome = self.request("hello", protocol=PROTOCOL, client="treeline_sidecar.py")
        except BaseException:
            self.close()
            raise

    def spawn(self, command, **options):
        """Starts a program; `options` as in docs/sidecar.md: cwd, env, stdin, shutdown, whenLeaderEnds, ..."""
        program, *args = [command] if isinstance(command, str) else command
        options.setdefault("credit", {"stdout": WINDOW, "stderr": WINDOW})
        return self.request("spawn", command=program, args=args, **options)

    def request(self, method, **params):
        """Asks the sidecar and waits for the answer."""
        number, answer = next(self._ids), _Later()
        with self._lock:
            if self._over is not None:
                raise self._over
            self._waiting[number] = answer
        self._send({"id": number, "method": method, "params": params})
        return answer.get()

    def _notify(self, method, **params):
        self._send({"method": method, "params": params})

    def _send(self, message):
        data = json.dumps({"jsonrpc": "2.0", **message}).encode() + b"\n"
        try:
            with self._writing:
                self._child.stdin.write(data)
                self._child.stdin.flush()
        except (BrokenPipeError, ValueError):
            pass  # it has ended; whoever waits is told by the reader

    def _read(self):
        for line in self._child.stdout:
            message = json.loads(line)
            if "method" in message:
                method, params = message["method"], message["params"]
                process = self._processes.get(params["process"])
                process._event(method, params)
                if process.ended:
                    del self._processes[params["process"]]
                continue
            with self._lock:
                answer = self._waiting.pop(message["id"], None)
            if answer is None:
                continue
            if "error" in message:
                answer.set(SidecarError(message["error"]))
                continue
            result = message["result"]
            if "process" in result:  # its events come right after this
                number = result["process"]
                result = self._processes[number] = Process(self, number, result["pid"], result["level"])
            answer.set(result)
        gone = SidecarGone(f"the sidecar has ended with code {self._child.wait()}")
        with self._lock:
            self._over = gone
            waiting = list(self._waiting.values())
        for answer in waiting:
            answer.set(gone)
        for process in list(self._processes.values()):
            process._gone(gone)

    def close(self):
        """Ends every tree by its plan and returns the sidecar's exit code: 0 when nothing is left."""
        with self._writing:
            try:
                self._child.stdin.close()
            except BrokenPipeError:
                pass
        self._reader.join()
        self._child.stdout.close()
        return self._child.wait()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
