/** `treeline daemon` as a program of another machine calls it: by ssh, without a terminal and without input. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Schema } from "effect"
import * as child_process from "node:child_process"
import * as fs from "node:fs"
import * as os from "node:os"
import { CommandReport } from "treeline"
import { freePort } from "../support/Children.ts"
import { real } from "../support/DaemonCommand.ts"
import { eventually } from "../support/Eventually.ts"
import * as Scratch from "../support/Scratch.ts"
import * as Command from "../support/TreelineCommand.ts"
import * as Up from "../support/Up.ts"

/** A session of its own, so no terminal, and no standard input at all. */
const alone = ["setsid", "sh", "-c", "exec \"$@\" <&-", "sh", ...Command.treeline]

/** One line with one object on one of the two streams, and nothing on the other one; `ended` means that both pipes are. */
const only = (
  { code, stderr, stdout }: Command.Outcome,
  kind: keyof typeof CommandReport
): Record<string, unknown> => {
  const failed = kind === "Failure"
  const [text, other] = failed ? [stderr, stdout] : [stdout, stderr]
  assert.match(text, /^\{.*\}\n$/, "exactly one line")
  assert.strictEqual(other, "")
  const value = JSON.parse(text) as Record<string, unknown>
  if (failed) {
    assert.strictEqual(Schema.decodeUnknownSync(CommandReport.Failure)(value).exitCode, code)
    return value["error"] as Record<string, unknown>
  }
  assert.isUndefined(Up.whyNot(kind, value))
  return value
}

interface Call {
  readonly argv: ReadonlyArray<string>
  readonly code: number
  readonly kind: keyof typeof CommandReport
  readonly is: Readonly<Record<string, unknown>>
}

const failure = (argv: ReadonlyArray<string>, code: number, tag: string): Call => ({
  argv,
  code,
  kind: "Failure",
  is: { _tag: tag }
})

/** In this order, on one configuration. */
const calls: ReadonlyArray<Call> = [
  { argv: ["status"], code: 3, kind: "DaemonStatus", is: { status: "notRunning" } },
  { argv: ["start"], code: 0, kind: "DaemonOutcome", is: { status: "started", managed: true } },
  { argv: ["start"], code: 0, kind: "DaemonOutcome", is: { status: "alreadyRunning", managed: true } },
  { argv: ["status"], code: 0, kind: "DaemonStatus", is: { status: "running", answers: true } },
  { argv: ["version"], code: 0, kind: "DaemonVersion", is: {} },
  { argv: ["install", "--dry-run", "--manager", "systemd"], code: 0, kind: "DaemonUnit", is: { written: false } },
  failure(["run"], 2, "UsageError"),
  failure(["start", "--wait", "soon"], 2, "UsageError"),
  failure(["stop", "--grace", "301s"], 2, "InvalidSpec"),
  failure(["start", "--set", "services.web.comand=x"], 2, "InvalidConfig"),
  { argv: ["restart", "--grace", "0"], code: 0, kind: "DaemonOutcome", is: { status: "restarted" } },
  // It takes longer than a second, so that it would be told what is waited for.
  { argv: ["stop", "--grace", "1200ms"], code: 0, kind: "DaemonOutcome", is: { status: "stopped", forced: true } },
  { argv: ["stop"], code: 0, kind: "DaemonOutcome", is: { status: "notRunning" } }
]

const configure = (scratch: Scratch.Scratch): void => {
  const shutdown = { steps: [{ action: "SIGTERM" as const, within: "1 minute" }] }
  Up.configure(scratch, { services: { web: { ...Up.role(scratch, "stubborn"), shutdown } } })
}

// ------------------------------------------------------------------------------------------------------- real ssh

const find = (name: string): string | undefined =>
  ["/usr/sbin", "/usr/bin", "/usr/local/sbin", "/usr/local/bin"].map((folder) => `${folder}/${name}`).find(
    fs.existsSync
  )

const sshd = find("sshd")

/** An empty folder in which sshd locks a part of itself up when it is root's; made at each start of the system, or here. */
const emptyFolder = Effect.acquireRelease(
  Effect.sync(() => {
    const folder = "/run/sshd"
    const missing = process.getuid?.() === 0 && !fs.existsSync(folder)
    if (missing) fs.mkdirSync(folder, { mode: 0o755 })
    return missing ? folder : undefined
  }),
  (folder) => Effect.sync(() => folder !== undefined && fs.rmdirSync(folder))
)

const noSsh = sshd === undefined
  ? "sshd is not installed"
  : find("ssh") === undefined || find("ssh-keygen") === undefined
  ? "ssh is not installed"
  : undefined

/** A server of the test's own with keys of its own: an ordinary process on a high port. Returns how a line is run by it. */
const serve = (scratch: Scratch.Scratch) =>
  Effect.gen(function*() {
    yield* emptyFolder
    const port = yield* freePort
    const home = scratch.file("ssh")
    fs.mkdirSync(home, { mode: 0o700 })
    for (const name of ["host", "user"]) {
      child_process.execFileSync("ssh-keygen", ["-q", "-t", "ed25519", "-N", "", "-f", `${home}/${name}`])
    }
    fs.writeFileSync(
      `${home}/config`,
      [
        "ListenAddress 127.0.0.1",
        `Port ${port}`,
        `HostKey ${home}/host`,
        `AuthorizedKeysFile ${home}/user.pub`,
        "PidFile none",
        "StrictModes no",
        "UsePAM no",
        "PasswordAuthentication no",
        "PermitRootLogin prohibit-password",
        "PermitUserEnvironment no",
        ""
      ].join("\n")
    )
    const server = yield* Command.start([], {
      scratch,
      program: [sshd!, "-D", "-e", "-f", `${home}/config`],
      sparesOthers: true
    })
    yield* eventually("sshd listens", () => server.stderr().includes("Server listening"), {
      detail: () => server.stderr()
    })
    const options = [
      "BatchMode=yes",
      "StrictHostKeyChecking=no",
      "UserKnownHostsFile=/dev/null",
      "IdentitiesOnly=yes",
      "LogLevel=ERROR"
    ].flatMap((option) => ["-o", option])
    const ssh = ["ssh", "-F", "none", ...options, "-i", `${home}/user`, "-p", `${port}`]
    return (line: string) => [...ssh, `${os.userInfo().username}@127.0.0.1`, line]
  })

const quoted = (word: string): string => `'${word.replaceAll("'", `'\\''`)}'`

describe("treeline daemon, called from afar", () => {
  real(
    "peer 113: without a terminal and without input each verb prints exactly one object, and its pipes end with it",
    (scratch) =>
      Effect.gen(function*() {
        configure(scratch)
        for (const { argv, code, is, kind } of calls) {
          const outcome = yield* Command.run(["daemon", ...argv, "--json"], {
            scratch,
            program: alone,
            sparesOthers: true
          })
          const name = argv.join(" ")
          assert.strictEqual(outcome.code, code, `${name}: ${outcome.stdout}${outcome.stderr}`)
          const value = only(outcome, kind)
          for (const [field, expected] of Object.entries(is)) {
            assert.strictEqual(value[field], expected, `${name}: ${field}`)
          }
        }
        yield* scratch.awaitNoneLiving(0)
        // Nothing is there to be asked.
        fs.rmSync(scratch.file("treeline.json"))
        const outcome = yield* Command.run(["daemon", "start", "--json"], { scratch, program: alone })
        assert.strictEqual(outcome.code, 2)
        assert.strictEqual(only(outcome, "Failure")["_tag"], "InvalidConfig")
      })
  )

  it.live.skipIf(noSsh !== undefined)(
    `peer 113: over ssh the connection ends with the command, and the daemon stays${
      noSsh === undefined ? "" : ` (${noSsh})`
    }`,
    () =>
      Effect.gen(function*() {
        const scratch = yield* Scratch.make
        Up.configure(scratch, { services: { web: Up.role(scratch, "grandchild") } })
        const line = yield* serve(scratch)
        const remote = (...argv: ReadonlyArray<string>) => {
          const variables = Object.entries(Command.environment(scratch)).map(([name, value]) => `${name}=${value}`)
          const words = ["env", ...variables, ...Command.treeline, "daemon", ...argv, "--json"]
          const program = line(`cd ${quoted(scratch.directory)} && ${words.map(quoted).join(" ")}`)
          return Command.run([], { scratch, program, sparesOthers: true })
        }
        const started = only(yield* remote("start"), "DaemonOutcome")
        assert.strictEqual(started["status"], "started")
        yield* scratch.awaitNamed("leaf")
        const status = only(yield* remote("status"), "DaemonStatus")
        assert.deepStrictEqual([status["status"], status["pid"]], ["running", started["pid"]])
        const refused = yield* remote("start", "--wait", "soon")
        assert.deepStrictEqual([refused.code, only(refused, "Failure")["_tag"]], [2, "UsageError"])
        const stopped = only(yield* remote("stop"), "DaemonOutcome")
        assert.deepStrictEqual([stopped["status"], stopped["pid"]], ["stopped", started["pid"]])
        yield* scratch.awaitNoneLiving(0)
      }).pipe(Effect.scoped),
    60_000
  )
})
