/**
 * `treeline run` as a separate process, without a terminal.
 */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import * as child_process from "node:child_process"
import * as fs from "node:fs"
import { CommandReport } from "treeline"
import { eventually, stays } from "../support/Eventually.ts"
import { treeCommand } from "../support/Host.ts"
import { isAlive } from "../support/Processes.ts"
import * as Scratch from "../support/Scratch.ts"
import * as Command from "../support/TreelineCommand.ts"

const decodeRun = Schema.decodeUnknownSync(Schema.fromJsonString(CommandReport.Run), { onExcessProperty: "error" })
const decodeFailure = Schema.decodeUnknownSync(Schema.fromJsonString(CommandReport.Failure), {
  onExcessProperty: "error"
})

const noPython = Command.whyNoPython()

/** Says `ready`, then which of the signals that end a program it gets, and stays. It has no children. */
const recorder = [
  process.execPath,
  "-e",
  "for (const s of ['SIGHUP','SIGINT','SIGQUIT','SIGTERM']) process.on(s, () => console.log('got ' + s));" +
  "setInterval(() => {}, 1000); console.log('ready')"
]

describe("treeline run: how it ends", () => {
  it.live.each([0, 3, 255])("the exit code of the command is passed on: %i", (code) =>
    Effect.gen(function*() {
      const scratch = yield* Scratch.make
      const outcome = yield* Command.run(["run", "--", "sh", "-c", `echo out; echo err >&2; exit ${code}`], { scratch })
      assert.deepStrictEqual(outcome, { code, signal: null, stdout: "out\n", stderr: "err\n" })
    }))

  it.live.each(["SIGHUP", "SIGINT", "SIGTERM"] as const)(
    "of %s it dies itself, so that a calling script stops",
    (signal) =>
      Effect.gen(function*() {
        const scratch = yield* Scratch.make
        const outcome = yield* Command.run(["run", "--", "sh", "-c", `kill -${signal.slice(3)} $$`], { scratch })
        assert.deepStrictEqual(outcome, { code: null, signal, stdout: "", stderr: "" })
      })
  )

  it.live.each([["SIGKILL", 137], ["SIGABRT", 134], ["SIGSEGV", 139], ["SIGQUIT", 131], ["SIGPIPE", 141]] as const)(
    "another signal gives 128 and its number: %s",
    ([signal, code]) =>
      Effect.gen(function*() {
        const scratch = yield* Scratch.make
        const outcome = yield* Command.run(["run", "--", "sh", "-c", `ulimit -c 0; kill -${signal.slice(3)} $$`], {
          scratch
        })
        assert.deepStrictEqual([outcome.code, outcome.signal, outcome.stderr], [code, null, ""])
      })
  )

  it.live("a shell sees the same status as without treeline", () =>
    Effect.gen(function*() {
      const scratch = yield* Scratch.make
      const script =
        "\"$@\" sh -c 'kill -TERM $$'; echo $?; \"$@\" sh -c 'kill -KILL $$'; echo $?; \"$@\" false; echo $?"
      const codes = (prefix: ReadonlyArray<string>) =>
        Command.run([...prefix], { scratch, program: ["sh", "-c", script, "sh"] })
      const contained = yield* codes([...Command.treeline, "run", "--"])
      const plain = yield* codes(["env"])
      assert.strictEqual(contained.stdout, "143\n137\n1\n")
      assert.strictEqual(contained.stdout, plain.stdout)
    }))
})

describe("treeline run: where it runs", () => {
  it.live("inside another treeline run: one report, nothing left, the same code", () =>
    Effect.gen(function*() {
      const scratch = yield* Scratch.make
      const inner = [...Command.treeline, "run", "--", ...treeCommand("failed", scratch)]
      const outcome = yield* Command.run(["run", "--", ...inner], { scratch })
      assert.deepStrictEqual([outcome.code, outcome.stdout], [3, ""])
      assert.match(outcome.stderr, /^treeline: ended 2 processes that sh left behind: .*\n$/)
      assert.deepStrictEqual(scratch.living(), [])
    }))

  it.live("in a pipeline: a reader that goes ends the writer, without a word", () =>
    Effect.gen(function*() {
      const scratch = yield* Scratch.make
      const outcome = yield* Command.run([...Command.treeline, "run", "--", "yes"], {
        scratch,
        program: ["bash", "-c", "\"$@\" | head -1; echo ${PIPESTATUS[0]}", "bash"]
      })
      assert.deepStrictEqual(outcome, { code: 0, signal: null, stdout: "y\n141\n", stderr: "" })
    }))

  const namespace = ["unshare", "--pid", "--fork", "--mount-proc"]
  const noNamespace = child_process.spawnSync(namespace[0]!, [...namespace.slice(1), "true"]).status !== 0

  it.live.skipIf(noNamespace)(
    "as process 1, which no signal of its own ends: 128 + N (needs a pid namespace)",
    () =>
      Effect.gen(function*() {
        const scratch = yield* Scratch.make
        const outcome = yield* Command.run([...Command.treeline, "run", "--", "sh", "-c", "kill -TERM $$"], {
          scratch,
          program: namespace
        })
        assert.deepStrictEqual([outcome.code, outcome.signal], [143, null])
      })
  )

  it.live.each(["0", "1", "2"])("with descriptor %s closed", (fd) =>
    Effect.gen(function*() {
      const scratch = yield* Scratch.make
      const outcome = yield* Command.run([...Command.treeline, "run", "--", ...treeCommand("failed", scratch)], {
        scratch,
        program: ["sh", "-c", `"$@" ${fd}>&-`, "sh"]
      })
      assert.strictEqual(outcome.code, 3)
      assert.deepStrictEqual(scratch.living(), [])
    }))
})

describe("treeline run: what passes through", () => {
  it.live("standard input reaches the command and ends there", () =>
    Effect.gen(function*() {
      const scratch = yield* Scratch.make
      const input = "line\n".repeat(50_000)
      const outcome = yield* Command.run(["run", "--", "wc", "-c"], { scratch, input })
      assert.strictEqual(outcome.stdout.trim(), String(input.length))
    }))

  it.live("arguments after -- are the command's, options and further -- included", () =>
    Effect.gen(function*() {
      const scratch = yield* Scratch.make
      const outcome = yield* Command.run(
        ["run", "--grace", "1s", "--", "printf", "%s|", "--json", "-h", "--", "a b", "", "--grace", "-5"],
        { scratch }
      )
      assert.strictEqual(outcome.stdout, "--json|-h|--|a b||--grace|-5|")
    }))

  it.live.skipIf(noPython !== undefined)(
    "the command's descriptors stay blocking (needs python3)",
    () =>
      Effect.gen(function*() {
        const scratch = yield* Scratch.make
        const script =
          "import fcntl,os,sys; print([bool(fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_NONBLOCK) for fd in (0,1,2)])"
        const outcome = yield* Command.run(["run", "--", "python3", "-c", script], { scratch })
        // Pipes of Node are sockets that Node itself has made non-blocking on its own side only.
        assert.strictEqual(outcome.stdout, "[False, False, False]\n")
      })
  )

  it.live("SIGUSR1 and SIGUSR2 are the command's", () =>
    Effect.gen(function*() {
      const scratch = yield* Scratch.make
      const started = yield* Command.start([
        "run",
        "--",
        "sh",
        "-c",
        "trap 'echo got 1' USR1; trap 'echo got 2; exit 7' USR2; echo ready; while :; do sleep 0.05; done"
      ], { scratch })
      yield* started.awaitOutput("ready")
      started.signal("SIGUSR1")
      yield* started.awaitOutput("got 1")
      started.signal("SIGUSR2")
      const outcome = yield* started.ended
      assert.deepStrictEqual([outcome.code, outcome.stdout], [7, "ready\ngot 1\ngot 2\n"])
    }))
})

describe("treeline run: what is left over", () => {
  it.live("peer 4: what the command leaves behind is ended and named in one line", () =>
    Effect.gen(function*() {
      const scratch = yield* Scratch.make
      const outcome = yield* Command.run(["run", "--", ...treeCommand("failed", scratch)], { scratch })
      assert.strictEqual(outcome.code, 3)
      const left = (yield* scratch.awaitReported(3)).filter(({ name }) => name === "quiet")
      assert.strictEqual(left.length, 2)
      assert.match(
        outcome.stderr,
        /^treeline: ended 2 processes that sh left behind: \d+ \((sleep|sh)\), \d+ \((sleep|sh)\)\n$/
      )
      for (const { pid } of left) assert.include(outcome.stderr, `${pid} (`)
      assert.deepStrictEqual(scratch.living(), [])
    }))

  it.live("control: on child_process the same command leaves both behind", () =>
    Effect.gen(function*() {
      const scratch = yield* Scratch.make
      const [file, ...args] = treeCommand("failed", scratch)
      assert.strictEqual(child_process.spawnSync(file!, args, { stdio: "ignore" }).status, 3)
      yield* scratch.awaitReported(3)
      yield* stays("both live", () => scratch.living().length === 2, 300)
    }))

  it.live("nothing is said when nothing was left", () =>
    Effect.gen(function*() {
      const scratch = yield* Scratch.make
      const outcome = yield* Command.run(["run", "--", "sh", "-c", "sleep 0.05 & wait"], { scratch })
      assert.deepStrictEqual(outcome, { code: 0, signal: null, stdout: "", stderr: "" })
    }))

  it.live.each(["session", "daemon", "cleared", "stopped"])(
    "P9: the tree ends when treeline is killed: %s",
    (role) =>
      Effect.gen(function*() {
        const scratch = yield* Scratch.make
        const started = yield* Command.start(["run", "--grace", "200ms", "--", ...treeCommand(role, scratch)], {
          scratch
        })
        yield* scratch.awaitReported(role === "session" ? 3 : 2)
        yield* eventually("the tree lives", () => scratch.living().length >= 2)
        started.signal("SIGKILL")
        yield* scratch.awaitNoneLiving(10_000)
      })
  )
})

describe("treeline run: signals", () => {
  it.live.each(["SIGHUP", "SIGINT", "SIGQUIT", "SIGTERM"] as const)(
    "P4: %s begins the plan with that signal, a second one kills at once",
    (signal) =>
      Effect.gen(function*() {
        const scratch = yield* Scratch.make
        const started = yield* Command.start(["run", "--grace", "60s", "--", ...recorder], { scratch })
        yield* started.awaitOutput("ready")
        started.signal(signal)
        yield* started.awaitOutput(`got ${signal}`)
        yield* stays("it keeps the grace time", () => isAlive(started.identity), 200)
        assert.strictEqual(started.stdout(), `ready\ngot ${signal}\n`)
        started.signal(signal)
        const outcome = yield* started.ended
        assert.deepStrictEqual([outcome.code, outcome.stderr], [137, ""])
      })
  )

  it.live("P10: what ignores the signal is killed after the grace time, and not before", () =>
    Effect.gen(function*() {
      const scratch = yield* Scratch.make
      const started = yield* Command.start(
        ["run", "--grace", "700ms", "--", ...treeCommand("stubborn", scratch)],
        { scratch }
      )
      yield* scratch.awaitReported(2)
      const stubborn = yield* scratch.awaitNamed("stubborn")
      started.signal("SIGTERM")
      yield* stays("it lives through the grace time", () => isAlive(stubborn), 500)
      assert.strictEqual((yield* started.ended).code, 137)
      assert.deepStrictEqual(scratch.living(), [])
    }))

  it.live("F12: grace 0 kills at once, without a signal before", () =>
    Effect.gen(function*() {
      const scratch = yield* Scratch.make
      const started = yield* Command.start(["run", "--grace", "0", "--", ...recorder], { scratch })
      yield* started.awaitOutput("ready")
      started.signal("SIGTERM")
      const outcome = yield* started.ended
      assert.deepStrictEqual([outcome.code, outcome.stdout], [137, "ready\n"])
    }))
})

describe("treeline run: for scripts", () => {
  it.live("--json: one object on stdout, the command's own stdout whole on stderr", () =>
    Effect.gen(function*() {
      const scratch = yield* Scratch.make
      const script = "head -c 3000000 /dev/zero | tr '\\0' x; sleep 60 & exit 4"
      const outcome = yield* Command.run(["run", "--json", "--", "sh", "-c", script], { scratch })
      const report = decodeRun(outcome.stdout)
      assert.strictEqual(outcome.stdout.split("\n").length, 2)
      assert.strictEqual(outcome.stderr, "x".repeat(3_000_000))
      assert.strictEqual(outcome.code, 4)
      assert.containsSubset(report, {
        command: "sh",
        status: { _tag: "Exited", code: 4 },
        exitCode: 4,
        stoppedBy: null,
        survivors: []
      })
      assert.strictEqual(report.leftBehind.length, 1)
      assert.match(report.leftBehind[0]!.command, /^(sleep|sh)$/) // it may not have become sleep yet
      // The object says who was left, so that the test can see that it has gone.
      assert.strictEqual(isAlive({ pid: report.leftBehind[0]!.pid, start: report.leftBehind[0]!.startTime }), false)
    }))

  it.live("--json: a stop is told, and a death by signal stays one", () =>
    Effect.gen(function*() {
      const scratch = yield* Scratch.make
      const started = yield* Command.start(["run", "--json", "--", "sh", "-c", "echo ready >&2; exec sleep 60"], {
        scratch
      })
      yield* eventually("the program runs", () => started.stderr().includes("ready"), { within: 20_000 })
      started.signal("SIGTERM")
      const outcome = yield* started.ended
      assert.strictEqual(outcome.signal, "SIGTERM")
      assert.containsSubset(decodeRun(outcome.stdout), {
        status: { _tag: "Signaled", signal: "SIGTERM" },
        exitCode: 143,
        stoppedBy: "SIGTERM",
        leftBehind: []
      })
    }))

  it.live("--report: the same object in a file, stdout stays the command's", () =>
    Effect.gen(function*() {
      const scratch = yield* Scratch.make
      const outcome = yield* Command.run(["run", "--report", "result.json", "--", "echo", "hello"], { scratch })
      assert.deepStrictEqual(outcome, { code: 0, signal: null, stdout: "hello\n", stderr: "" })
      const report = decodeRun(fs.readFileSync(scratch.file("result.json"), "utf8"))
      assert.deepStrictEqual([report.command, report.exitCode], ["echo", 0])
    }))
})

describe("treeline run: refusals", () => {
  const refused = (argv: ReadonlyArray<string>, env: Readonly<Record<string, string>> = {}) =>
    Effect.gen(function*() {
      const scratch = yield* Scratch.make
      fs.writeFileSync(scratch.file("plain.txt"), "no program", { mode: 0o644 })
      const plain = yield* Command.run(["run", ...argv], { scratch, env })
      const json = yield* Command.run(["run", "--json", ...argv], { scratch, env })
      assert.deepStrictEqual([plain.stdout, json.stdout], ["", ""])
      assert.match(plain.stderr, /^treeline: /)
      const failure = decodeFailure(json.stderr)
      assert.deepStrictEqual([json.code, failure.exitCode], [plain.code, plain.code])
      assert.include(plain.stderr, failure.message)
      assert.strictEqual(fs.existsSync(scratch.file("ran")), false)
      return { code: plain.code, error: failure.error, stderr: plain.stderr }
    })

  it.live("127: the program is not there", () =>
    Effect.gen(function*() {
      const { code, error, stderr } = yield* refused(["--", "no-such-program", "secret-argument"])
      assert.containsSubset([code, error], [127, { _tag: "LaunchError", reason: "NotFound" }])
      assert.notInclude(stderr, "secret-argument")
    }))

  it.live("126: the file is no program", () =>
    Effect.gen(function*() {
      const { code, error } = yield* refused(["--", "./plain.txt"])
      assert.containsSubset([code, error], [126, { _tag: "LaunchError", reason: "PermissionDenied" }])
    }))

  it.live("125: the containment that is required is not available, and nothing runs", () =>
    Effect.gen(function*() {
      // The portable engine has nothing that seals.
      const { code, error } = yield* refused(["--require", "sealed", "--", "touch", "ran"], {
        TREELINE_ENGINE: "portable"
      })
      assert.containsSubset([code, error], [125, { _tag: "ContainmentUnavailable", required: "sealed" }])
    }))

  it.live("what is available can be required", () =>
    Effect.gen(function*() {
      const scratch = yield* Scratch.make
      const outcome = yield* Command.run(["run", "--require", "group", "--", "true"], { scratch })
      assert.deepStrictEqual(outcome, { code: 0, signal: null, stdout: "", stderr: "" })
    }))

  it.live.each(["-5s", "-1", "nan", "inf", "-inf", "5 apples", "", "999999h"])(
    "F12: --grace \"%s\" is refused, never taken for another time",
    (grace) =>
      Effect.gen(function*() {
        const scratch = yield* Scratch.make
        for (const flag of [["--grace", grace], [`--grace=${grace}`]]) {
          const outcome = yield* Command.run(["run", ...flag, "--", "touch", "ran"], { scratch })
          assert.strictEqual(outcome.code, 2)
          assert.include(outcome.stderr, "value for flag --grace")
        }
        assert.strictEqual(fs.existsSync(scratch.file("ran")), false)
      })
  )

  it.live("2: no command, an unknown option, an unknown level", () =>
    Effect.gen(function*() {
      for (const argv of [[], ["--wat", "--", "true"], ["--require", "best", "--", "true"]]) {
        assert.containsSubset(yield* refused(argv), { code: 2, error: { _tag: "UsageError" } })
      }
    }))
})

describe("treeline run: help", () => {
  it.live("fits in 80 columns, with examples and exit codes, without colours in a pipe", () =>
    Effect.gen(function*() {
      const scratch = yield* Scratch.make
      for (
        const argv of [["--help"], ["run", "--help"], ["guard", "--help"], ["sidecar", "--help"], ["doctor", "--help"]]
      ) {
        const { code, stderr, stdout } = yield* Command.run(argv, { scratch })
        assert.deepStrictEqual([code, stderr], [0, ""])
        assert.include(stdout, "Examples:")
        assert.notInclude(stdout, "\x1b")
        for (const line of stdout.split("\n")) assert.isBelow(line.length, 80)
      }
      assert.include((yield* Command.run(["run", "--help"], { scratch })).stdout, "Exit codes:")
    }))
})
