/**
 * `treeline run` as a separate process, without a terminal.
 */
import { describe, expect, it } from "@effect/vitest"
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
      expect(outcome).toEqual({ code, signal: null, stdout: "out\n", stderr: "err\n" })
    }))

  it.live.each(["SIGHUP", "SIGINT", "SIGTERM"])(
    "of %s it dies itself, so that a calling script stops",
    (signal) =>
      Effect.gen(function*() {
        const scratch = yield* Scratch.make
        const outcome = yield* Command.run(["run", "--", "sh", "-c", `kill -${signal.slice(3)} $$`], { scratch })
        expect(outcome).toEqual({ code: null, signal, stdout: "", stderr: "" })
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
        expect([outcome.code, outcome.signal, outcome.stderr]).toEqual([code, null, ""])
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
      expect(contained.stdout).toBe("143\n137\n1\n")
      expect(contained.stdout).toBe(plain.stdout)
    }))
})

describe("treeline run: what passes through", () => {
  it.live("standard input reaches the command and ends there", () =>
    Effect.gen(function*() {
      const scratch = yield* Scratch.make
      const input = "line\n".repeat(50_000)
      const outcome = yield* Command.run(["run", "--", "wc", "-c"], { scratch, input })
      expect(outcome.stdout.trim()).toBe(String(input.length))
    }))

  it.live("arguments after -- are the command's, options and further -- included", () =>
    Effect.gen(function*() {
      const scratch = yield* Scratch.make
      const outcome = yield* Command.run(
        ["run", "--grace", "1s", "--", "printf", "%s|", "--json", "-h", "--", "a b", "", "--grace", "-5"],
        { scratch }
      )
      expect(outcome.stdout).toBe("--json|-h|--|a b||--grace|-5|")
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
        expect(outcome.stdout).toBe("[False, False, False]\n")
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
      expect([outcome.code, outcome.stdout]).toEqual([7, "ready\ngot 1\ngot 2\n"])
    }))
})

describe("treeline run: what is left over", () => {
  it.live("peer 4: what the command leaves behind is ended and named in one line", () =>
    Effect.gen(function*() {
      const scratch = yield* Scratch.make
      const outcome = yield* Command.run(["run", "--", ...treeCommand("failed", scratch)], { scratch })
      expect(outcome.code).toBe(3)
      const left = (yield* scratch.awaitReported(3)).filter(({ name }) => name === "quiet")
      expect(left.length).toBe(2)
      expect(outcome.stderr).toMatch(
        /^treeline: ended 2 processes that sh left behind: \d+ \((sleep|sh)\), \d+ \((sleep|sh)\)\n$/
      )
      for (const { pid } of left) expect(outcome.stderr).toContain(`${pid} (`)
      expect(scratch.living()).toEqual([])
    }))

  it.live("control: on child_process the same command leaves both behind", () =>
    Effect.gen(function*() {
      const scratch = yield* Scratch.make
      const [file, ...args] = treeCommand("failed", scratch)
      expect(child_process.spawnSync(file!, args, { stdio: "ignore" }).status).toBe(3)
      yield* scratch.awaitReported(3)
      yield* stays("both live", () => scratch.living().length === 2, 300)
    }))

  it.live("nothing is said when nothing was left", () =>
    Effect.gen(function*() {
      const scratch = yield* Scratch.make
      const outcome = yield* Command.run(["run", "--", "sh", "-c", "sleep 0.05 & wait"], { scratch })
      expect(outcome).toEqual({ code: 0, signal: null, stdout: "", stderr: "" })
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
        expect(started.stdout()).toBe(`ready\ngot ${signal}\n`)
        started.signal(signal)
        const outcome = yield* started.ended
        expect([outcome.code, outcome.stderr]).toEqual([137, ""])
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
      expect((yield* started.ended).code).toBe(137)
      expect(scratch.living()).toEqual([])
    }))

  it.live("F12: grace 0 kills at once, without a signal before", () =>
    Effect.gen(function*() {
      const scratch = yield* Scratch.make
      const started = yield* Command.start(["run", "--grace", "0", "--", ...recorder], { scratch })
      yield* started.awaitOutput("ready")
      started.signal("SIGTERM")
      const outcome = yield* started.ended
      expect([outcome.code, outcome.stdout]).toEqual([137, "ready\n"])
    }))
})

describe("treeline run: for scripts", () => {
  it.live("--json: one object on stdout, the command's own stdout whole on stderr", () =>
    Effect.gen(function*() {
      const scratch = yield* Scratch.make
      const script = "head -c 3000000 /dev/zero | tr '\\0' x; sleep 60 & exit 4"
      const outcome = yield* Command.run(["run", "--json", "--", "sh", "-c", script], { scratch })
      const report = decodeRun(outcome.stdout)
      expect(outcome.stdout.split("\n").length).toBe(2)
      expect(outcome.stderr).toBe("x".repeat(3_000_000))
      expect(outcome.code).toBe(4)
      expect(report).toMatchObject({
        command: "sh",
        status: { _tag: "Exited", code: 4 },
        exitCode: 4,
        stoppedBy: null,
        survivors: []
      })
      expect(report.leftBehind.map(({ command }) => command)).toEqual(["sleep"])
      // The object says who was left, so that the test can see that it has gone.
      expect(isAlive({ pid: report.leftBehind[0]!.pid, start: report.leftBehind[0]!.startTime })).toBe(false)
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
      expect(outcome.signal).toBe("SIGTERM")
      expect(decodeRun(outcome.stdout)).toMatchObject({
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
      expect(outcome).toEqual({ code: 0, signal: null, stdout: "hello\n", stderr: "" })
      const report = decodeRun(fs.readFileSync(scratch.file("result.json"), "utf8"))
      expect([report.command, report.exitCode]).toEqual(["echo", 0])
    }))
})

describe("treeline run: refusals", () => {
  const refused = (argv: ReadonlyArray<string>) =>
    Effect.gen(function*() {
      const scratch = yield* Scratch.make
      fs.writeFileSync(scratch.file("plain.txt"), "no program", { mode: 0o644 })
      const plain = yield* Command.run(["run", ...argv], { scratch })
      const json = yield* Command.run(["run", "--json", ...argv], { scratch })
      expect([plain.stdout, json.stdout]).toEqual(["", ""])
      expect(plain.stderr).toMatch(/^treeline: /)
      const failure = decodeFailure(json.stderr)
      expect([json.code, failure.exitCode]).toEqual([plain.code, plain.code])
      expect(plain.stderr).toContain(failure.message)
      expect(fs.existsSync(scratch.file("ran"))).toBe(false)
      return { code: plain.code, error: failure.error, stderr: plain.stderr }
    })

  it.live("127: the program is not there", () =>
    Effect.gen(function*() {
      const { code, error, stderr } = yield* refused(["--", "no-such-program", "secret-argument"])
      expect([code, error]).toMatchObject([127, { _tag: "LaunchError", reason: "NotFound" }])
      expect(stderr).not.toContain("secret-argument")
    }))

  it.live("126: the file is no program", () =>
    Effect.gen(function*() {
      const { code, error } = yield* refused(["--", "./plain.txt"])
      expect([code, error]).toMatchObject([126, { _tag: "LaunchError", reason: "PermissionDenied" }])
    }))

  it.live("125: the containment that is required is not available, and nothing runs", () =>
    Effect.gen(function*() {
      const { code, error } = yield* refused(["--require", "sealed", "--", "touch", "ran"])
      expect([code, error]).toMatchObject([125, { _tag: "ContainmentUnavailable", required: "sealed" }])
    }))

  it.live("what is available can be required", () =>
    Effect.gen(function*() {
      const scratch = yield* Scratch.make
      const outcome = yield* Command.run(["run", "--require", "group", "--", "true"], { scratch })
      expect(outcome).toEqual({ code: 0, signal: null, stdout: "", stderr: "" })
    }))

  it.live.each(["-5s", "-1", "nan", "inf", "-inf", "5 apples", "", "999999h"])(
    "F12: --grace \"%s\" is refused, never taken for another time",
    (grace) =>
      Effect.gen(function*() {
        const scratch = yield* Scratch.make
        for (const flag of [["--grace", grace], [`--grace=${grace}`]]) {
          const outcome = yield* Command.run(["run", ...flag, "--", "touch", "ran"], { scratch })
          expect(outcome.code).toBe(2)
          expect(outcome.stderr).toContain("value for flag --grace")
        }
        expect(fs.existsSync(scratch.file("ran"))).toBe(false)
      })
  )

  it.live("2: no command, an unknown option, an unknown level", () =>
    Effect.gen(function*() {
      for (const argv of [[], ["--wat", "--", "true"], ["--require", "best", "--", "true"]]) {
        expect(yield* refused(argv)).toMatchObject({ code: 2, error: { _tag: "UsageError" } })
      }
    }))
})

describe("treeline run: help", () => {
  it.live("fits in 80 columns, with examples and exit codes, without colours in a pipe", () =>
    Effect.gen(function*() {
      const scratch = yield* Scratch.make
      for (const argv of [["--help"], ["run", "--help"], ["guard", "--help"], ["doctor", "--help"]]) {
        const { code, stderr, stdout } = yield* Command.run(argv, { scratch })
        expect([code, stderr]).toEqual([0, ""])
        expect(stdout).toContain("Examples:")
        expect(stdout).not.toContain("\x1b")
        for (const line of stdout.split("\n")) expect(line.length).toBeLessThan(80)
      }
      expect((yield* Command.run(["run", "--help"], { scratch })).stdout).toContain("Exit codes:")
    }))
})
