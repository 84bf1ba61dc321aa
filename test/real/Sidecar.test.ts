/**
 * `treeline sidecar` as a process of its own, driven by its protocol, and by Python through the client in
 * examples/sidecar.
 */
import { assert, describe, it } from "@effect/vitest"
import { Ajv } from "ajv"
import { Effect, Exit, Scope } from "effect"
import * as crypto from "node:crypto"
import * as fs from "node:fs"
import { fileURLToPath } from "node:url"
import { afterAll, beforeAll } from "vitest"
import { eventually, stays } from "../support/Eventually.ts"
import { fixture, treeCommand } from "../support/Host.ts"
import { isAlive, killIfAlive, stateOf } from "../support/Processes.ts"
import * as Scratch from "../support/Scratch.ts"
import * as Sidecar from "../support/SidecarClient.ts"
import * as Command from "../support/TreelineCommand.ts"

/** Memory is looked up in /proc. */
const noProc = process.platform !== "linux"

const mebibyte = 1024 * 1024

const request = <A = Readonly<Record<string, unknown>>>(
  client: Sidecar.SidecarClient,
  method: string,
  params: object
) => Effect.promise(() => client.request<A>(method, params))

const refusal = (client: Sidecar.SidecarClient, method: string, params: object) =>
  Effect.promise(() => client.refusal(method, params))

const sh = (script: string, ...args: ReadonlyArray<string>) => ["sh", "-c", script, "sh", ...args]

/** SIGTERM, this many ms, SIGKILL. */
const terminate = (within: number) => ({ steps: [{ action: "SIGTERM", within }] })

/** Runs until it is ended, and needs no processor. */
const endless = ["sleep", "60"]

const schemaFile = new URL("../../packages/treeline/schema/sidecar.schema.json", import.meta.url)

const validator = () =>
  new Ajv({ strict: true, strictTypes: false, strictRequired: false }).compile(
    JSON.parse(fs.readFileSync(schemaFile, "utf8"))
  )

const elapsed = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.gen(function*() {
    const startedAt = performance.now()
    const value = yield* effect
    return { value, ms: performance.now() - startedAt }
  })

describe("treeline sidecar, one session", () => {
  const scope = Effect.runSync(Scope.make())
  let client: Sidecar.SidecarClient
  beforeAll(async () => {
    const scratch = await Effect.runPromise(Scope.provide(Scratch.make, scope))
    client = await Effect.runPromise(Scope.provide(Sidecar.start(scratch, ["--grace", "2s"]), scope))
  })
  afterAll(() => Effect.runPromise(Scope.close(scope, Exit.void)))

  it.live.each([["grandchild", 3], ["session", 3], ["daemon", 2], ["cleared", 2], ["wide", 21]] as const)(
    "P1: cancel ends the whole tree: %s",
    ([role, reports]) =>
      Effect.gen(function*() {
        const scratch = yield* Scratch.make
        const running = yield* Sidecar.spawn(client, treeCommand(role, scratch))
        yield* scratch.awaitReported(reports)
        yield* eventually("the tree lives", () => scratch.living().length >= reports)
        yield* request(client, "cancel", { process: running.process })
        assert.deepStrictEqual(scratch.living(), [])
        assert.deepStrictEqual(yield* running.awaitEvent("empty"), { process: running.process, survivors: [] })
        assert.include((yield* running.awaitEvent("exited"))["status"], { _tag: "Signaled", signal: "SIGTERM" })
        yield* running.awaitEvent("drained")
      })
  )

  it.live("P2, P5: a fast producer that is cancelled mid-stream: ended at once, and every byte arrives before drained", () =>
    Effect.gen(function*() {
      const running = yield* Sidecar.spawn(client, ["seq", "1", "100000000"], { credit: { stdout: 100_000 } })
      yield* eventually("the granted bytes", () => running.seen.bytes === 100_000)
      const { ms } = yield* elapsed(request(client, "cancel", { process: running.process }))
      assert.isBelow(ms, 1500)
      yield* running.awaitEvent("exited")
      yield* running.awaitEvent("empty")
      assert.isUndefined(running.seen.told.get("drained"))
      assert.strictEqual(running.seen.bytes, 100_000)
      yield* request(client, "credit", { process: running.process, stream: "stdout", bytes: 2 ** 40 })
      const drained = yield* running.awaitEvent("drained")
      assert.strictEqual(drained["bytes"], running.seen.bytes)
      assert.isAbove(running.seen.bytes, 200_000)
      assert.strictEqual(running.seen.order.at(-1), "drained")
      const lines = running.stdout().split("\n").slice(0, -1)
      assert.isTrue(lines.every((line, index) => line === String(index + 1)))
    }))

  it.live("P3: a cancel while a write waits: the write is refused", () =>
    Effect.gen(function*() {
      const running = yield* Sidecar.spawn(client, endless, { stdin: "pipe" })
      const data = Buffer.alloc(mebibyte).toString("base64")
      const write = client.refusal("write", { process: running.process, data })
      yield* request(client, "cancel", { process: running.process })
      const { data: error } = yield* Effect.promise(() => write)
      assert.deepStrictEqual(error, { _tag: "InputClosed", process: running.process, reason: "Gone" })
    }))

  it.live("P4: SIGINT and SIGTERM are sent on, and nothing else", () =>
    Effect.gen(function*() {
      const script = "trap 'echo int' INT; trap 'echo term; exit 5' TERM; echo up; while :; do sleep 0.05; done"
      const running = yield* Sidecar.spawn(client, sh(script))
      yield* running.awaitOutput("up")
      const sent = yield* request(client, "signal", { process: running.process, signal: "SIGINT", target: "leader" })
      assert.deepStrictEqual(sent, { delivered: 1, denied: [] })
      yield* running.awaitOutput("int")
      yield* request(client, "signal", { process: running.process, signal: "SIGTERM", target: "leader" })
      assert.deepStrictEqual((yield* running.awaitEvent("exited"))["status"], { _tag: "Exited", code: 5 })
      assert.strictEqual((yield* running.awaitEvent("drained"))["bytes"], "up\nint\nterm\n".length)
    }))

  it.live("P8, P20, P41, P42: a cancel ends a running process promptly", () =>
    Effect.gen(function*() {
      const running = yield* Sidecar.spawn(client, endless)
      const { ms } = yield* elapsed(request(client, "cancel", { process: running.process }))
      assert.isBelow(ms, 1000)
    }))

  it.live("P9, P10, P11, P19, P23: a tree that ignores HUP, INT and TERM is killed after its grace time", () =>
    Effect.gen(function*() {
      const scratch = yield* Scratch.make
      const running = yield* Sidecar.spawn(client, treeCommand("stubborn", scratch), { shutdown: terminate(400) })
      yield* scratch.awaitReported(2)
      const { ms } = yield* elapsed(request(client, "cancel", { process: running.process }))
      assert.deepStrictEqual(scratch.living(), [])
      assert.isAbove(ms, 390)
      assert.isBelow(ms, 2000)
      const exited = yield* running.awaitEvent("exited")
      assert.include(exited["status"], { _tag: "Signaled", signal: "SIGKILL" })
    }))

  it.live("P14, P44, P45, P52: cancels share one end, a later one can only shorten it, one after the end is nothing", () =>
    Effect.gen(function*() {
      const scratch = yield* Scratch.make
      const { process } = yield* Sidecar.spawn(client, treeCommand("asked", scratch))
      yield* scratch.awaitReported(1)
      const cancel = (within?: number) =>
        request(client, "cancel", { process, ...within !== undefined && { shutdown: terminate(within) } })
      const { ms, value } = yield* elapsed(
        Effect.all([cancel(20_000), cancel(), cancel(300), cancel(20_000)], { concurrency: "unbounded" })
      )
      assert.deepStrictEqual(value, [{}, {}, {}, {}])
      assert.isAbove(ms, 290)
      assert.isBelow(ms, 1900)
      assert.deepStrictEqual(yield* cancel(), {})
      assert.deepStrictEqual(yield* request(client, "signal", { process, signal: "SIGTERM" }), {
        delivered: 0,
        denied: []
      })
    }))

  it.live("P15, P26, P46, P53: what can't be started is told typed, and the next one starts", () =>
    Effect.gen(function*() {
      const scratch = yield* Scratch.make
      fs.writeFileSync(scratch.file("plain.txt"), "no program", { mode: 0o644 })
      const secret = "s3cr3t-argument"
      const cases = [
        [{ command: "no-such-prögram-€-𝄞" }, "NotFound"],
        [{ command: scratch.file("plain.txt") }, "PermissionDenied"],
        [{ command: "true", cwd: "/no/such/folder" }, "BadWorkingDirectory"],
        [{ command: "true", args: ["a\0b"] }, "InvalidArgument"],
        [{ command: "true", env: { "A=B": "x" } }, "InvalidArgument"]
      ] as const
      for (const [params, reason] of cases) {
        const { code, data, message } = yield* refusal(client, "spawn", {
          ...params,
          args: [...("args" in params ? params.args : []), secret]
        })
        assert.deepStrictEqual([data._tag, data["reason"], code], ["LaunchError", reason, -32002])
        assert.strictEqual(data["command"], params.command)
        assert.notInclude(message + JSON.stringify(data), secret)
      }
      const running = yield* Sidecar.spawn(client, ["echo", "fresh"])
      yield* running.awaitEvent("drained")
      assert.strictEqual(running.stdout(), "fresh\n")
    }))

  it.live("P17, P51: the end is a value: a code, or a signal", () =>
    Effect.gen(function*() {
      const status = (script: string) =>
        Effect.gen(function*() {
          const running = yield* Sidecar.spawn(client, sh(script))
          return (yield* running.awaitEvent("exited"))["status"]
        })
      assert.deepStrictEqual(yield* status("exit 0"), { _tag: "Exited", code: 0 })
      assert.deepStrictEqual(yield* status("exit 143"), { _tag: "Exited", code: 143 })
      assert.include(yield* status("kill -KILL $$"), { _tag: "Signaled", signal: "SIGKILL" })
    }))

  it.live("P18: what was written before a cancel is not lost, nor what is written on its way out", () =>
    Effect.gen(function*() {
      const running = yield* Sidecar.spawn(client, sh("trap 'echo bye; exit 0' TERM; echo up; sleep 60 & wait"))
      yield* running.awaitOutput("up")
      yield* request(client, "cancel", { process: running.process })
      yield* running.awaitEvent("drained")
      assert.strictEqual(running.stdout(), "up\nbye\n")
      assert.deepStrictEqual(running.seen.told.get("end stdout"), {
        process: running.process,
        stream: "stdout",
        bytes: 7,
        lost: 0
      })
    }))

  it.live("P24: both outputs are read side by side", () =>
    Effect.gen(function*() {
      const script = "for n in 1 2 3 4; do head -c 300000 /dev/zero; head -c 300000 /dev/zero >&2; done"
      const running = yield* Sidecar.spawn(client, sh(script))
      yield* running.awaitEvent("drained")
      assert.strictEqual(Buffer.concat(running.seen.stdout).length, 1_200_000)
      assert.strictEqual(Buffer.concat(running.seen.stderr).length, 1_200_000)
    }))

  it.live("P37, P38: a survivor that holds the pipe holds nobody up, and lives until the cancel", () =>
    Effect.gen(function*() {
      const scratch = yield* Scratch.make
      const running = yield* Sidecar.spawn(client, treeCommand("holder", scratch))
      const exited = yield* running.awaitEvent("exited")
      assert.deepStrictEqual(exited["status"], { _tag: "Exited", code: 0 })
      const drained = yield* running.awaitEvent("drained")
      assert.strictEqual(drained["truncated"], true)
      assert.strictEqual(scratch.living().length, 1)
      assert.isUndefined(running.seen.told.get("empty"))
      yield* request(client, "cancel", { process: running.process })
      yield* running.awaitEvent("empty")
      assert.deepStrictEqual(scratch.living(), [])
    }))

  it.live("P38: a survivor that writes on is not killed by it, and with \"end\" it is ended", () =>
    Effect.gen(function*() {
      const scratch = yield* Scratch.make
      const script = "sh -c 'echo \"writer $$\" >>\"$0\"; while :; do echo x || exit; sleep 0.01; done' \"$1\" & " +
        "until [ -s \"$1\" ]; do sleep 0.01; done; echo done"
      const kept = yield* Sidecar.spawn(client, sh(script, scratch.report))
      yield* kept.awaitEvent("drained")
      yield* stays("the writer lives", () => scratch.living().length === 1, 200)
      yield* request(client, "cancel", { process: kept.process })
      const other = yield* Scratch.make
      const ended = yield* Sidecar.spawn(client, sh(script, other.report), { whenLeaderEnds: "end" })
      assert.deepStrictEqual((yield* ended.awaitEvent("empty"))["survivors"], [])
      assert.deepStrictEqual(other.living(), [])
    }))

  it.live("P43: a program that reads its input ends, unless it is given one", () =>
    Effect.gen(function*() {
      const without = yield* Sidecar.spawn(client, ["cat"])
      assert.deepStrictEqual((yield* without.awaitEvent("exited"))["status"], { _tag: "Exited", code: 0 })
      const given = yield* Sidecar.spawn(client, ["cat"], { stdin: "pipe" })
      const { process } = given
      for (const text of ["one ", "two ", "three"]) {
        yield* request(client, "write", { process, data: Buffer.from(text).toString("base64") })
      }
      yield* given.awaitOutput("three")
      assert.isUndefined(given.seen.told.get("exited"))
      yield* request(client, "write", { process, end: true })
      yield* given.awaitEvent("drained")
      assert.strictEqual(given.stdout(), "one two three")
    }))

  it.live("P47: a character that is split between two messages arrives whole: bytes are never touched", () =>
    Effect.gen(function*() {
      const running = yield* Sidecar.spawn(client, ["printf", "é€𝄞"], { credit: {} })
      const size = Buffer.byteLength("é€𝄞")
      for (let count = 1; count <= size; count++) {
        yield* request(client, "credit", { process: running.process, stream: "stdout", bytes: 1 })
        yield* eventually(`${count} bytes`, () => running.seen.bytes === count)
      }
      yield* running.awaitEvent("end stdout")
      assert.strictEqual(running.seen.stdout.length, size)
      assert.strictEqual(running.stdout(), "é€𝄞")
    }))

  it.live("P39, P40: a large binary output arrives byte for byte, also through an input: 10 MB", () =>
    Effect.gen(function*() {
      const scratch = yield* Scratch.make
      const bytes = crypto.randomBytes(10_000_000)
      const sha256 = (data: Uint8Array) => crypto.createHash("sha256").update(data).digest("hex")
      fs.writeFileSync(scratch.file("random"), bytes)
      const reading = yield* Sidecar.spawn(client, ["cat", scratch.file("random")])
      yield* reading.awaitEvent("drained")
      assert.strictEqual(sha256(Buffer.concat(reading.seen.stdout)), sha256(bytes))
      const echo = yield* Sidecar.spawn(client, ["cat"], { stdin: "pipe" })
      for (let from = 0; from < bytes.length; from += 2_000_000) {
        const data = bytes.subarray(from, from + 2_000_000).toString("base64")
        yield* request(client, "write", { process: echo.process, data, end: from + 2_000_000 >= bytes.length })
      }
      yield* echo.awaitEvent("drained")
      assert.strictEqual(sha256(Buffer.concat(echo.seen.stdout)), sha256(bytes))
    }))

  it.live("without credit nothing is told, and the child is held; with it, exactly as much", () =>
    Effect.gen(function*() {
      const running = yield* Sidecar.spawn(client, ["yes"], {
        credit: {},
        output: { whenFull: "hold", bytes: 100_000 }
      })
      yield* eventually("it is held", () => stateOf(running.pid) === "S")
      assert.strictEqual(running.seen.bytes, 0)
      for (const total of [10, 70_010]) {
        const bytes = total - running.seen.bytes
        yield* request(client, "credit", { process: running.process, stream: "stdout", bytes })
        yield* eventually(`${total} bytes`, () => running.seen.bytes === total)
      }
      yield* stays("no more", () => running.seen.bytes === 70_010, 50)
      yield* request(client, "discard", { process: running.process, stream: "stdout" })
      yield* eventually("it runs on", () => stateOf(running.pid) === "R")
      yield* request(client, "cancel", { process: running.process })
      const end = yield* running.awaitEvent("end stdout")
      assert.strictEqual(running.seen.bytes, 70_010)
      assert.strictEqual(end["bytes"], 70_010 + (end["lost"] as number))
    }))

  it.live("with \"drop\" the oldest is lost, and how much is told before what follows", () =>
    Effect.gen(function*() {
      const running = yield* Sidecar.spawn(client, sh("seq 1 200000; echo last"), {
        credit: {},
        output: { whenFull: "drop", bytes: 10_000 }
      })
      yield* running.awaitEvent("exited")
      yield* request(client, "credit", { process: running.process, stream: "stdout", bytes: 2 ** 40 })
      const { bytes } = yield* running.awaitEvent("drained")
      const lost = running.seen.gaps.reduce((sum, gap) => sum + gap, 0)
      assert.isAbove(lost, 1_000_000)
      assert.strictEqual(running.seen.bytes + lost, bytes)
      assert.isBelow(running.seen.bytes, 400_000)
      assert.isTrue(running.stdout().endsWith("\n200000\nlast\n"))
    }))

  it.live("an input that nobody takes is refused typed", () =>
    Effect.gen(function*() {
      const data = Buffer.from("x").toString("base64")
      const reasonOf = (process: number, params: object = { data }) =>
        Effect.map(refusal(client, "write", { process, ...params }), ({ data }) => [data._tag, data["reason"]])
      const without = yield* Sidecar.spawn(client, endless)
      assert.deepStrictEqual(yield* reasonOf(without.process), ["InputClosed", "NoPipe"])
      const closed = yield* Sidecar.spawn(client, sh("cat; exec sleep 60"), { stdin: "pipe" })
      yield* request(client, "write", { process: closed.process, data, end: true })
      assert.deepStrictEqual(yield* reasonOf(closed.process), ["InputClosed", "Closed"])
      const ended = yield* Sidecar.spawn(client, ["true"], { stdin: "pipe" })
      yield* ended.awaitEvent("drained")
      assert.deepStrictEqual(yield* reasonOf(ended.process), ["InputClosed", "Gone"])
      const deaf = yield* Sidecar.spawn(client, sh("exec 0<&-; echo deaf; exec sleep 60"), { stdin: "pipe" })
      yield* deaf.awaitOutput("deaf")
      // The system may take the bytes in the same instant in which it learns that nobody reads them.
      yield* Effect.promise(() => client.ask("write", { process: deaf.process, data }))
      assert.deepStrictEqual(yield* reasonOf(deaf.process), ["InputClosed", "Gone"])
      const many = Buffer.alloc(2.5 * mebibyte).toString("base64")
      const full = yield* Sidecar.spawn(client, endless, { stdin: "pipe" })
      const answers = Array.from({ length: 7 }, () => client.ask("write", { process: full.process, data: many }))
      const last = yield* Effect.promise(() => answers.at(-1)!)
      assert.deepStrictEqual((last["error"] as Sidecar.Refusal).data, {
        _tag: "LimitReached",
        limit: "input",
        most: 16 * mebibyte
      })
      for (const { process } of [without, closed, deaf, full]) yield* request(client, "cancel", { process })
      yield* Effect.promise(() => Promise.all(answers))
    }))

  it.live("unknown processes, methods and fields are refused typed, and an ended process is not unknown", () =>
    Effect.gen(function*() {
      for (const process of [0, -1, 1_000_000]) {
        for (const [method, params] of [["cancel", {}], ["write", {}], ["signal", { signal: "SIGINT" }]] as const) {
          const { code, data } = yield* refusal(client, method, { process, ...params })
          assert.deepStrictEqual([code, data], [-32005, { _tag: "UnknownProcess", process }])
        }
      }
      const unknown = yield* refusal(client, "explode", {})
      assert.deepStrictEqual([unknown.code, unknown.data], [-32601, { _tag: "UnknownMethod", method: "explode" }])
      const cases = [
        ["spawn", {}, "params.command"],
        ["spawn", { command: "true", colour: "red" }, "params.colour"],
        ["spawn", { command: "true", stdout: "inherit" }, "params.stdout"],
        ["spawn", { command: "true", shutdown: terminate(-1) }, "params.shutdown.steps.0.within"],
        ["cancel", { process: "1" }, "params.process"],
        ["write", { process: 1, data: "no base64" }, "params.data"],
        ["signal", { process: 1, signal: "SIGFOO" }, "params.signal"]
      ] as const
      for (const [method, params, field] of cases) {
        const { code, data } = yield* refusal(client, method, params)
        assert.deepStrictEqual([code, data._tag, data["field"]], [-32602, "InvalidSpec", field])
      }
    }))

  it.live("variables are laid over the sidecar's own, taken away, or all there is; none of it is told", () =>
    Effect.gen(function*() {
      const secret = "s3cr3t-value"
      const show = "printenv PATH >/dev/null && echo has-path; echo [$TOKEN] [$HOME]"
      const over = yield* Sidecar.spawn(client, sh(show, secret), { env: { TOKEN: secret, HOME: null } })
      yield* over.awaitEvent("drained")
      assert.strictEqual(over.stdout(), `has-path\n[${secret}] []\n`)
      const alone = yield* Sidecar.spawn(client, ["/usr/bin/env"], { env: { A: "b" }, inheritEnv: false })
      yield* alone.awaitEvent("drained")
      assert.notInclude(alone.stdout(), "PATH=")
      const refused = yield* refusal(client, "spawn", { command: "true", env: { TOKEN: [secret] }, args: [{ secret }] })
      assert.strictEqual(refused.data._tag, "InvalidSpec")
      const told = client.messages.filter((message) => (message as { method?: string }).method !== "output")
      assert.notInclude(JSON.stringify(told) + client.stderr, "s3cr3t")
    }))

  it.live("50 processes at once", () =>
    Effect.gen(function*() {
      const all = yield* Effect.forEach(
        Array.from({ length: 50 }, (_, index) => index),
        (index) => Sidecar.spawn(client, sh(`echo ${index}; exec sleep 60`)),
        { concurrency: "unbounded" }
      )
      for (const running of all) yield* running.awaitOutput("\n")
      const { ms } = yield* elapsed(
        Effect.forEach(all, ({ process }) => request(client, "cancel", { process }), { concurrency: "unbounded" })
      )
      assert.isBelow(ms, 2000)
      for (const [index, running] of all.entries()) {
        yield* running.awaitEvent("drained")
        assert.strictEqual(running.stdout(), `${index}\n`)
      }
    }))

  it.live("every message is as the published JSON Schema says, exited comes before empty, and nothing is on stderr", () =>
    Effect.sync(() => {
      const validate = validator()
      assert.isAbove(client.messages.length, 300)
      for (const message of client.messages) {
        assert.isTrue(validate(message), `${JSON.stringify(message)}: ${JSON.stringify(validate.errors)}`)
      }
      for (const { order } of client.processes.values()) {
        assert.isBelow(order.indexOf("exited"), order.indexOf("empty"))
        assert.strictEqual(order.filter((name) => !name.startsWith("output")).length, 5, order.join())
      }
      assert.strictEqual(client.stderr, "")
    }))
})

describe("treeline sidecar, its end", () => {
  it.live("another version is refused typed, with exit code 3; nothing is done before hello", () =>
    Effect.gen(function*() {
      const scratch = yield* Scratch.make
      const client = yield* Sidecar.start(scratch, [], { hello: false })
      const early = yield* refusal(client, "spawn", { command: "true" })
      assert.deepStrictEqual(early.data, { _tag: "UnexpectedMethod", method: "spawn" })
      const refused = yield* refusal(client, "hello", { protocol: 2 })
      assert.deepStrictEqual([refused.code, refused.data], [-32001, { _tag: "VersionMismatch", client: 2, server: 1 }])
      assert.deepStrictEqual(yield* Effect.promise(() => client.awaitEnd()), { code: 3, signal: null })
    }))

  it.live("F6, P22: when the pipe is closed every tree ends by its plan, side by side, and the code is 0", () =>
    Effect.gen(function*() {
      const scratch = yield* Scratch.make
      const client = yield* Sidecar.start(scratch, ["--grace", "500ms"])
      for (const role of ["session", "cleared", "stubborn", "asked", "daemon"]) {
        yield* Sidecar.spawn(client, treeCommand(role, scratch))
      }
      const unread = yield* Sidecar.spawn(
        client,
        sh("echo unread; echo \"last $$\" >>\"$1\"; exec sleep 60", scratch.report),
        {
          credit: { stdout: 2 }
        }
      )
      yield* scratch.awaitReported(11)
      const { ms, value } = yield* elapsed(Effect.promise(() => (client.close(), client.awaitEnd())))
      assert.deepStrictEqual(value, { code: 0, signal: null })
      assert.deepStrictEqual(scratch.living(), [])
      assert.isAbove(ms, 490)
      assert.isBelow(ms, 2500)
      assert.strictEqual(scratch.reported().filter(({ name }) => name === "asked-to-end").length, 1)
      for (const { told } of client.processes.values()) assert.isTrue(told.has("drained") && told.has("empty"))
      const { process, seen } = unread
      assert.strictEqual(unread.stdout(), "un")
      assert.deepStrictEqual(seen.told.get("end stdout"), { process, stream: "stdout", bytes: 7, lost: 5 })
    }))

  it.live("from a file to a file: what is asked is answered, and the end of the file is the end", () =>
    Effect.gen(function*() {
      const scratch = yield* Scratch.make
      const lines = [["hello", { protocol: 1 }], ["cancel", { process: 1 }], ["spawn", {
        command: "sleep",
        args: ["60"]
      }]]
      const requests = lines.map(([method, params], id) => JSON.stringify({ jsonrpc: "2.0", id, method, params }))
      fs.writeFileSync(scratch.file("requests"), `${requests.join("\n")}\n`)
      const outcome = yield* Command.run(["-c", "\"$@\" <requests >answers", "sh", ...Command.treeline, "sidecar"], {
        scratch,
        program: ["sh"]
      })
      assert.deepStrictEqual(outcome, { code: 0, signal: null, stdout: "", stderr: "" })
      const answers = fs.readFileSync(scratch.file("answers"), "utf8").trim().split("\n").map((line) =>
        JSON.parse(line) as { readonly id?: number; readonly method?: string; readonly error?: Sidecar.Refusal }
      )
      assert.deepStrictEqual(answers.slice(0, 3).map(({ id }) => id), [0, 1, 2])
      assert.strictEqual(answers[1]!.error!.data._tag, "UnknownProcess")
      assert.includeMembers(answers.map(({ method }) => method), ["exited", "empty", "drained"])
    }))

  it.live("P49, P50: a pipe that is closed right after a spawn leaves nothing", () =>
    Effect.gen(function*() {
      const scratch = yield* Scratch.make
      const client = yield* Sidecar.start(scratch)
      const [command, ...args] = treeCommand("session", scratch)
      for (let count = 0; count < 5; count++) client.notify("spawn", { command, args })
      client.close()
      assert.deepStrictEqual(yield* Effect.promise(() => client.awaitEnd()), { code: 0, signal: null })
      assert.deepStrictEqual(scratch.living(), [])
    }))

  it.live("F6: a sidecar that is killed: the guardian ends every tree", () =>
    Effect.gen(function*() {
      const scratch = yield* Scratch.make
      const client = yield* Sidecar.start(scratch, ["--grace", "300ms"])
      for (const role of ["session", "cleared", "stubborn"]) yield* Sidecar.spawn(client, treeCommand(role, scratch))
      yield* scratch.awaitReported(7)
      killIfAlive(client.identity)
      yield* scratch.awaitNoneLiving()
    }))

  it.live("SIGTERM ends every tree first and the sidecar of SIGTERM; a second one kills at once", () =>
    Effect.gen(function*() {
      const scratch = yield* Scratch.make
      const client = yield* Sidecar.start(scratch, ["--grace", "20s"])
      const running = yield* Sidecar.spawn(client, treeCommand("asked", scratch))
      yield* scratch.awaitReported(1)
      client.child.kill("SIGTERM")
      yield* scratch.awaitNamed("asked-to-end")
      const { ms, value } = yield* elapsed(
        Effect.promise(() => (client.child.kill("SIGTERM"), client.awaitEnd()))
      )
      assert.deepStrictEqual(value, { code: null, signal: "SIGTERM" })
      assert.isBelow(ms, 3000)
      assert.deepStrictEqual(scratch.living(), [])
      assert.deepStrictEqual(running.seen.told.get("empty"), { process: running.process, survivors: [] })
    }))

  it.live.skipIf(noProc)(
    "a client that reads no more is not written to without bound, and can still close; one that closes its end is gone",
    () =>
      Effect.gen(function*() {
        const scratch = yield* Scratch.make
        const client = yield* Sidecar.start(scratch)
        const running = yield* Sidecar.spawn(client, ["yes"])
        running.seen.onOutput = () => {}
        yield* eventually("output comes", () => running.seen.bytes > 8 * mebibyte)
        client.child.stdout!.pause()
        yield* eventually("the child is held", () => stateOf(running.pid) === "S")
        const before = Sidecar.memoryOf(client.identity.pid)
        yield* stays(
          "memory is bounded",
          () => Sidecar.memoryOf(client.identity.pid) < before + 16,
          500
        )
        client.close()
        yield* eventually("the tree ends", () => stateOf(running.pid) === undefined)
        yield* eventually("so does the sidecar", () => !isAlive(client.identity))
        const other = yield* Sidecar.start(scratch)
        const loud = yield* Sidecar.spawn(other, ["yes"])
        other.child.stdout!.destroy()
        assert.deepStrictEqual(yield* Effect.promise(() => other.awaitEnd()), { code: 0, signal: null })
        assert.isUndefined(stateOf(loud.pid))
      })
  )

  it.live.skipIf(noProc)(
    "10,000 lines of rubbish and one that is too long: each is answered, memory is flat, and it works on",
    () =>
      Effect.gen(function*() {
        const scratch = yield* Scratch.make
        const client = yield* Sidecar.start(scratch)
        const rubbish = [
          "{",
          "nonsense s3cr3t",
          "[]",
          "null",
          "{\"jsonrpc\":\"2.0\",\"id\":{}}",
          "[[[[[[",
          "\"\\ud800\""
        ]
        const send = (count: number) =>
          Effect.gen(function*() {
            const before = client.refusals.length
            for (let at = 0; at < count; at++) client.raw(`${rubbish[at % rubbish.length]!}\n`)
            client.raw(new Uint8Array([0xff, 0xfe, 10]))
            yield* eventually("all are answered", () => client.refusals.length - before === count + 1)
          })
        yield* send(5000)
        const before = Sidecar.memoryOf(client.identity.pid)
        yield* send(10_000)
        client.raw(Buffer.alloc(5 * mebibyte, "x"))
        client.raw("\n")
        yield* eventually("so is the long one", () => client.refusals.at(-1)!.data._tag === "OversizedMessage")
        const reasons = new Set(
          client.refusals.map(({ code, data }) => `${code} ${data._tag} ${String(data["reason"])}`)
        )
        assert.deepStrictEqual([...reasons].toSorted(), [
          "-32600 MalformedMessage NotRequest",
          "-32600 OversizedMessage undefined",
          "-32700 MalformedMessage NotJson",
          "-32700 MalformedMessage NotUtf8"
        ])
        assert.notInclude(JSON.stringify(client.refusals), "s3cr3t")
        assert.isBelow(Sidecar.memoryOf(client.identity.pid) - before, 40)
        const running = yield* Sidecar.spawn(client, ["echo", "still here"])
        yield* running.awaitOutput("still here")
      })
  )

  it.live.skipIf(noProc)(
    "a child that writes without end and without credit: memory is bounded, whatever the policy",
    () =>
      Effect.gen(function*() {
        const scratch = yield* Scratch.make
        const client = yield* Sidecar.start(scratch)
        const spawn = (whenFull: string) =>
          Sidecar.spawn(client, ["yes"], { credit: {}, output: { whenFull, bytes: mebibyte } })
        const held = yield* spawn("hold")
        yield* eventually("the first is held", () => stateOf(held.pid) === "S")
        const before = Sidecar.memoryOf(client.identity.pid)
        const dropped = yield* spawn("drop")
        // What is read is garbage soon, and Node lets some of it wait.
        yield* eventually("much was written", () => {
          assert.isBelow(Sidecar.memoryOf(client.identity.pid), before + 160)
          return Sidecar.writtenBy(dropped.pid) > 500 * mebibyte
        })
        assert.deepStrictEqual([held.seen.bytes, dropped.seen.bytes], [0, 0])
        yield* request(client, "cancel", { process: dropped.process })
      })
  )

  it.live("a containment that is not to be had is refused: by the command with code 125, by a spawn typed", () =>
    Effect.gen(function*() {
      const scratch = yield* Scratch.make
      const env = { TREELINE_ENGINE: "portable" }
      const command = yield* Sidecar.start(scratch, ["--require", "sealed"], { hello: false, env })
      assert.deepStrictEqual(yield* Effect.promise(() => command.awaitEnd()), { code: 125, signal: null })
      assert.include(command.stderr, "containment \"sealed\" is required")
      const client = yield* Sidecar.start(scratch, ["--require", "group"], { env })
      const refused = yield* refusal(client, "spawn", { command: "true", require: "sealed" })
      assert.deepStrictEqual([refused.code, refused.data._tag], [-32003, "ContainmentUnavailable"])
      const running = yield* Sidecar.spawn(client, ["echo", "portable"])
      yield* running.awaitEvent("drained")
    }))
})

describe.skipIf(Command.whyNoPython() !== undefined)("treeline sidecar (needs python3)", () => {
  const folder = fileURLToPath(new URL("../../examples/sidecar", import.meta.url))
  const env = { PYTHONPATH: folder, PYTHONDONTWRITEBYTECODE: "1", SIDECAR: JSON.stringify(Command.treeline) }

  it.live("the demo of the client in Python", () =>
    Effect.gen(function*() {
      const scratch = yield* Scratch.make
      const { code, stderr, stdout } = yield* Command.run([`${folder}/demo.py`, ...Command.treeline], {
        scratch,
        program: ["python3"],
        env
      })
      assert.deepStrictEqual([code, stderr], [0, ""])
      const lines = stdout.trim().split("\n")
      assert.match(lines.shift()!, /^treeline \d+\.\d+\.\d+, containment: \w+$/)
      assert.deepStrictEqual(lines, [
        "output:",
        "  line 1",
        "  line 2",
        "  line 3",
        "ended:  {'_tag': 'Exited', 'code': 7}",
        "echo:   FROM STDIN TO STDOUT",
        "error:  LaunchError NotFound",
        "tree:   3 processes, 3 live",
        "cancel: SIGKILL, 0 live, after the grace time: True",
        "left:   []",
        "closed: nothing is left, nobody had to wait"
      ])
    }))

  it.live("a client that is killed: every tree ends, sessions and daemons too", () =>
    Effect.gen(function*() {
      const scratch = yield* Scratch.make
      const roles = ["session", "daemon", "cleared", "stubborn"]
      const script = `
import json, os, time
from treeline_sidecar import Sidecar
sidecar = Sidecar(json.loads(os.environ["SIDECAR"]), grace="300ms")
for role in ${JSON.stringify(roles)}: sidecar.spawn(["sh", ${JSON.stringify(fixture("tree.sh"))}, role, ${
        JSON.stringify(scratch.report)
      }])
print("sidecar", sidecar.welcome["pid"], flush=True)
time.sleep(60)
`
      const started = yield* Command.start([script], { scratch, program: ["python3", "-c"], env })
      yield* started.awaitOutput("sidecar ")
      yield* scratch.awaitReported(9)
      const pid = Number(/sidecar (\d+)/.exec(started.stdout())![1])
      started.signal("SIGKILL")
      yield* scratch.awaitNoneLiving()
      yield* eventually("the sidecar has ended", () => stateOf(pid) === undefined)
    }))
})
