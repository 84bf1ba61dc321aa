import { assert, layer } from "@effect/vitest"
import { type Errors, ExitStatus, Probe, ProcessPlatform, type ProcessTree, ShutdownPlan } from "@treeline/core"
import { PosixPlatform } from "@treeline/platform-posix"
import { Deferred, Effect, Fiber, Result } from "effect"
import { HttpClient } from "effect/http"
import { ChildProcess } from "effect/process"
import * as fs from "node:fs"
import * as net from "node:net"
import { eventually } from "../support/Eventually.ts"
import { fixture, startProgram } from "../support/Host.ts"
import { stateOf } from "../support/Processes.ts"
import * as Scratch from "../support/Scratch.ts"
import { assertNoneLiving } from "../support/Trees.ts"

const sh = (script: string, ...args: ReadonlyArray<string>) => ChildProcess.make("sh", ["-c", script, "sh", ...args])

const server = (
  role: string,
  address: string | number,
  options: { readonly arg?: string; readonly log?: string } = {}
) =>
  ChildProcess.make(
    process.execPath,
    [fixture("server.ts"), role, String(address), ...(options.arg === undefined ? [] : [options.arg])],
    { env: { SERVER_LOG: options.log }, extendEnv: true, stderr: "inherit" }
  )

const launch = (command: ChildProcess.StandardCommand, options?: ProcessPlatform.LaunchOptions) =>
  ProcessPlatform.ProcessPlatform.use((platform) =>
    platform.launch(command, { shutdown: ShutdownPlan.kill, ...options })
  )

const ready = (
  probe: Probe.Probe,
  tree: ProcessTree.ProcessTree | undefined,
  options: Parameters<typeof Probe.readiness>[1] = {}
) =>
  ProcessPlatform.ProcessPlatform.use((platform) =>
    Probe.awaitReady(
      Result.getOrThrow(Probe.validateReadiness(Probe.readiness(probe, { within: "10 seconds", ...options }))),
      { platform, tree }
    )
  )

const check = (probe: Probe.Probe, tree: ProcessTree.ProcessTree | undefined, timeout = 5000) =>
  ProcessPlatform.ProcessPlatform.use((platform) => Probe.check(probe, timeout, { platform, tree }))

/** The reason of a failed attempt. */
const reason = <R>(self: Effect.Effect<void, Errors.ProbeFailure | Errors.InvalidSpec, R>) =>
  Effect.map(Effect.flip(self), (error) => error._tag === "ProbeFailure" ? error.reason : error.message)

/** The port that server.ts says it listens on. */
const portOf = Effect.fn(function*(tree: ProcessTree.ProcessTree) {
  yield* ready(Probe.line(/^port \d+$/), tree)
  return Number(new TextDecoder().decode(yield* tree.stdout.tail).slice(5))
})

/** Somebody outside every tree who listens: this process. Returns the port, or the path. */
const stranger = (where: { readonly port: number; readonly host: string } | { readonly path: string }) =>
  Effect.acquireRelease(
    Effect.callback<net.Server>((resume) => {
      const server = net.createServer((socket) => {
        socket.on("error", () => {})
        socket.end("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")
      })
      server.listen(where, () => resume(Effect.succeed(server)))
    }),
    (server) => Effect.sync(() => server.close())
  )

const portOfServer = (server: net.Server): number => (server.address() as net.AddressInfo).port

layer(PosixPlatform.layer, { excludeTestServices: true })("announcements", (it) => {
  it.effect("peer 87: a child that announces itself and dies at once was ready, and then exited", () =>
    Effect.gen(function*() {
      const command = ChildProcess.make("sh", ["-c", "echo >&3; exit 4"], {
        additionalFds: { fd3: { type: "output" } }
      })
      const tree = yield* launch(command)
      const events: Array<string> = []
      yield* ready(Probe.fd(3), tree)
      events.push("ready")
      assert.deepStrictEqual(yield* tree.exited, ExitStatus.exited(4))
      // Also when nobody looked until everything was over.
      yield* tree.drained
      yield* ready(Probe.fd(3), tree)
      events.push("ready again")
      assert.deepStrictEqual(events, ["ready", "ready again"])
    }))

  it.effect("bytes without a newline on the descriptor are no announcement", () =>
    Effect.gen(function*() {
      const command = ChildProcess.make("sh", ["-c", "printf x >&3"], { additionalFds: { fd3: { type: "output" } } })
      const failure = yield* Effect.flip(ready(Probe.fd(3), yield* launch(command)))
      assert(failure._tag === "NotReady")
      assert.strictEqual(failure.lastFailure.reason, "Ended")
    }))

  it.effect("peer 89: a line that comes in two chunks, with a carriage return", () =>
    Effect.gen(function*() {
      const scratch = yield* Scratch.make
      const go = scratch.file("go")
      const tree = yield* launch(
        sh("printf 'liste'; until [ -e \"$1\" ]; do sleep 0.02; done; printf 'ning\\r\\n'; sleep 60", go)
      )
      const waiting = yield* Effect.forkScoped(ready(Probe.line(/^listening$/), tree), { startImmediately: true })
      while ((yield* tree.stdout.bytes) < 5) yield* Effect.sleep(5)
      fs.writeFileSync(go, "")
      yield* Fiber.join(waiting)
    }))

  it.effect("peer 89: a line on stderr", () =>
    Effect.gen(function*() {
      const tree = yield* launch(sh("echo up >&2; sleep 60"))
      yield* ready(Probe.line("up"), tree)
      yield* ready(Probe.line("up", { stream: "stderr" }), tree)
      const other = yield* Effect.flip(ready(Probe.line("up", { stream: "stdout" }), tree, { within: 100 }))
      assert(other._tag === "NotReady")
      assert.strictEqual(other.lastFailure.reason, "TimedOut")
      assert.strictEqual(other.outputTail, "stderr:\nup\n")
    }))

  it.effect("peer 89: a line longer than 64 KB, where the ring and the pieces of a line end", () =>
    Effect.gen(function*() {
      const script =
        "head -c 65532 /dev/zero | tr '\\0' x; printf 'the server is up'; head -c 200000 /dev/zero | tr '\\0' y; echo; sleep 60"
      const tree = yield* launch(sh(script))
      yield* ready(Probe.line("the server is up"), tree)
      const again = yield* launch(sh(script))
      yield* ready(Probe.line(/^x+the server is up/), again)
    }))

  it.effect("a line before a flood is seen, although the ring has dropped it", () =>
    Effect.gen(function*() {
      const tree = yield* launch(sh("echo up; head -c 8000000 /dev/zero; sleep 60"))
      yield* ready(Probe.line(/^up$/), tree)
      while ((yield* tree.stdout.bytes) < 8_000_000) yield* Effect.sleep(5)
      const late = yield* Effect.flip(ready(Probe.line(/^up$/), tree, { within: 100 }))
      assert.strictEqual(late._tag, "NotReady")
    }))

  it.effect("P47: only a whole line counts", () =>
    Effect.gen(function*() {
      const tree = yield* launch(sh("printf listening"))
      const failure = yield* Effect.flip(ready(Probe.line("listening"), tree))
      assert(failure._tag === "NotReady")
      assert.strictEqual(failure.lastFailure.reason, "Ended")
      assert.strictEqual(failure.outputTail, "stdout:\nlistening\n")
    }))

  it.effect("A17: the end of one output says nothing of the other", () =>
    Effect.gen(function*() {
      const scratch = yield* Scratch.make
      const go = scratch.file("go")
      const tree = yield* launch(
        sh("exec 1>&-; until [ -e \"$1\" ]; do sleep 0.02; done; echo up >&2; sleep 60", go)
      )
      const waiting = yield* Effect.forkScoped(ready(Probe.line("up"), tree), { startImmediately: true })
      // Its stdout has ended when a probe of it alone has.
      const failure = yield* Effect.flip(ready(Probe.line("up", { stream: "stdout" }), tree))
      assert(failure._tag === "NotReady" && failure.lastFailure.reason === "Ended")
      fs.writeFileSync(go, "")
      yield* Fiber.join(waiting)
    }))

  it.effect("what the child said last is in the error, in whole lines and whole characters", () =>
    Effect.gen(function*() {
      const tree = yield* launch(
        sh("i=0; while [ $i -lt 2000 ]; do echo \"zeile ä $i\"; i=$((i + 1)); done; echo 'grund: ö' >&2")
      )
      const failure = yield* Effect.flip(ready(Probe.line("never"), tree))
      assert(failure._tag === "NotReady")
      assert.isAtMost(new TextEncoder().encode(failure.outputTail).length, 4096)
      const [, reason, , ...rest] = failure.outputTail.split("\n")
      assert.strictEqual(reason, "grund: ö")
      assert.match(rest[0]!, /^zeile ä \d+$/)
      assert.deepStrictEqual(rest.slice(-2), ["zeile ä 1999", ""])
      assert.isAbove(rest.length, 200)
    }))
})

layer(PosixPlatform.layer, { excludeTestServices: true })("ports", (it) => {
  it.effect("tcp: refused while nobody listens, then ready", () =>
    Effect.gen(function*() {
      const reserved = yield* Effect.scoped(Effect.map(stranger({ port: 0, host: "127.0.0.1" }), portOfServer))
      const idle = yield* launch(ChildProcess.make("sleep", ["60"]))
      assert.strictEqual(yield* reason(check(Probe.tcp(reserved), idle)), "Refused")
      const tree = yield* launch(server("accepts", reserved))
      yield* ready(Probe.tcp(reserved), tree)
      yield* ready(Probe.tcp({ host: "localhost", port: reserved }), tree)
    }))

  it.effect("a port that a stranger serves is not this child's readiness", () =>
    Effect.gen(function*() {
      const port = portOfServer(yield* stranger({ port: 0, host: "127.0.0.1" }))
      const tree = yield* launch(ChildProcess.make("sleep", ["60"]))
      const expected = process.platform === "linux" ? "OtherProcess" : undefined
      if (expected === undefined) return
      assert.strictEqual(yield* reason(check(Probe.tcp(port), tree)), expected)
      assert.strictEqual(yield* reason(check(Probe.http(`http://127.0.0.1:${port}/`), tree)), expected)
      const failure = yield* Effect.flip(ready(Probe.tcp(port), tree, { within: 1500, timeout: "10 seconds" }))
      assert(failure._tag === "NotReady")
      assert.strictEqual(failure.lastFailure.reason, expected)
      // Without a tree nobody can tell whose port it should be.
      yield* check(Probe.tcp(port), undefined)
    }))

  it.effect("a stranger on every address, of both families, is found out, too", () =>
    Effect.gen(function*() {
      if (process.platform !== "linux") return
      const tree = yield* launch(ChildProcess.make("sleep", ["60"]))
      for (const host of ["0.0.0.0", "::", "::ffff:127.0.0.1", "::1"]) {
        const port = portOfServer(yield* stranger({ port: 0, host }))
        for (const asked of host === "::1" ? ["::1"] : ["127.0.0.1", "localhost"]) {
          assert.strictEqual(
            yield* reason(check(Probe.tcp({ host: asked, port }), tree)),
            "OtherProcess",
            `${asked} ${host}`
          )
        }
      }
    }))

  it.effect("the port of a descendant is the child's; so is the path of its socket", () =>
    Effect.gen(function*() {
      const scratch = yield* Scratch.make
      const { args, command, options } = server("accepts", 0)
      const tree = yield* launch(
        ChildProcess.make("sh", ["-c", "\"$@\" & wait", "sh", command, ...args], options)
      )
      const port = yield* portOf(tree)
      yield* ready(Probe.tcp(port), tree)
      const path = scratch.file("socket")
      const onPath = yield* launch(server("accepts", path))
      yield* ready(Probe.tcp({ path }), onPath)
      if (process.platform !== "linux") return
      assert.strictEqual(yield* reason(check(Probe.tcp({ path }), tree)), "OtherProcess")
      assert.strictEqual(yield* reason(check(Probe.tcp(port), onPath)), "OtherProcess")
      assert.strictEqual(yield* reason(check(Probe.tcp({ path: scratch.file("none") }), tree)), "Refused")
    }))

  it.effect("a port that the child has given up is a stranger's, also when it was the child's before", () =>
    Effect.gen(function*() {
      if (process.platform !== "linux") return
      const tree = yield* launch(server("accepts", 0))
      const port = yield* portOf(tree)
      yield* check(Probe.tcp(port), tree)
      yield* tree.signal("SIGUSR2")
      yield* ready(Probe.line("given up"), tree)
      assert.strictEqual(yield* reason(check(Probe.tcp(port), tree)), "Refused")
      yield* stranger({ port, host: "127.0.0.1" })
      assert.strictEqual(yield* reason(check(Probe.tcp(port), tree)), "OtherProcess")
    }))

  it.effect("K1: a lost port is degraded at the first probe and failed at the threshold", () =>
    Effect.gen(function*() {
      const tree = yield* launch(server("accepts", 0))
      const port = yield* portOf(tree)
      const platform = yield* ProcessPlatform.ProcessPlatform
      const seen: Array<string> = []
      const failed = yield* Deferred.make<void>()
      const healthy = yield* Deferred.make<void>()
      const liveness = Probe.liveness(Probe.tcp(port), { interval: 20, initialDelay: 0 })
      yield* Effect.forkScoped(
        Probe.watch(Result.getOrThrow(Probe.validateLiveness(liveness)), { platform, tree }, (health, failure) => {
          seen.push(health)
          // A process that is dying still accepts for a moment, and is of no tree any more.
          if (failure !== undefined) assert.include(["Refused", "OtherProcess"], failure.reason)
          return Effect.asVoid(
            health === "failed"
              ? Deferred.succeed(failed, undefined)
              : health === "healthy"
              ? Deferred.succeed(healthy, undefined)
              : Effect.void
          )
        })
      )
      yield* Deferred.await(healthy)
      yield* tree.signal("SIGKILL")
      yield* Deferred.await(failed)
      assert.deepStrictEqual(seen, ["healthy", "degraded", "failed"])
    }))

  it.effect("http: status, range, predicate, body, headers; redirects are not followed", () =>
    Effect.gen(function*() {
      const scratch = yield* Scratch.make
      const log = scratch.file("log")
      const good = yield* launch(server("status", 0, { arg: "200", log }))
      const bad = yield* launch(server("status", 0, { arg: "503" }))
      const moved = yield* launch(server("status", 0, { arg: "302", log }))
      const url = `http://127.0.0.1:${yield* portOf(good)}/health`
      const unavailable = `http://127.0.0.1:${yield* portOf(bad)}/`
      const redirected = `http://127.0.0.1:${yield* portOf(moved)}/`
      yield* check(Probe.http(url), good)
      yield* check(Probe.http({ url, body: /^path \/health$/g, headers: { authorization: "of the test" } }), good)
      yield* check(Probe.http({ url: unavailable, status: { min: 500, max: 599 } }), bad)
      yield* check(Probe.http({ url: unavailable, status: (status) => status === 503 }), bad)
      assert.strictEqual(yield* reason(check(Probe.http(unavailable), bad)), "WrongStatus")
      assert.strictEqual(yield* reason(check(Probe.http({ url, body: (text) => text === "" }), good)), "WrongBody")
      assert.strictEqual(yield* reason(check(Probe.http(redirected), moved)), "WrongStatus")
      const thrown = Probe.http({
        url,
        body: () => {
          throw new Error("in the predicate")
        }
      })
      assert.strictEqual(yield* reason(check(thrown, good)), "Failed")
      const requests = fs.readFileSync(log, "utf8").trim().split("\n").map((line) => line.split(" "))
      assert.strictEqual(new Set(requests.map(([port]) => port)).size, requests.length, "a connection for each request")
      assert.isTrue(requests.every(([, path]) => path !== "/elsewhere"))
      assert.isTrue(requests.some(([, , authorization]) => authorization === "of"))
    }))

  it.effect("http: a body without an end is read up to its bound, and its connection closed", () =>
    Effect.gen(function*() {
      const scratch = yield* Scratch.make
      const log = scratch.file("log")
      const tree = yield* launch(server("endless", 0, { log }))
      const url = `http://127.0.0.1:${yield* portOf(tree)}/`
      let length = 0
      const body = (text: string) => (length = text.length) > 0
      yield* check(Probe.http({ url, body }), tree)
      assert.strictEqual(length, 64 * 1024)
      yield* check(Probe.http(url), tree)
      yield* eventually("both are closed", () => fs.readFileSync(log, "utf8") === "closed\nclosed\n")
    }))

  it.effect("peer 91: a server that accepts and never answers times out, one attempt at a time, and none is left", () =>
    Effect.gen(function*() {
      const scratch = yield* Scratch.make
      const log = scratch.file("log")
      fs.writeFileSync(log, "")
      const lines = () => fs.readFileSync(log, "utf8").trim().split("\n")
      const tree = yield* launch(server("silent", 0, { log }))
      const url = `http://127.0.0.1:${yield* portOf(tree)}/`
      const platform = yield* ProcessPlatform.ProcessPlatform
      const { network } = platform
      assert(network !== undefined)
      const client = yield* network.http
      let [attempts, running, most] = [0, 0, 0]
      const counting = HttpClient.make((request) => {
        attempts++
        most = Math.max(most, ++running)
        return Effect.ensuring(client.execute(request), Effect.sync(() => running--))
      })
      const target = { platform: { ...platform, network: { ...network, http: Effect.succeed(counting) } }, tree }
      const failed = yield* Deferred.make<Errors.ProbeFailure | undefined>()
      const liveness = Probe.liveness(Probe.http(url), {
        interval: 1,
        timeout: 50,
        initialDelay: 0,
        failureThreshold: 5
      })
      const watching = yield* Effect.forkScoped(
        Probe.watch(
          Result.getOrThrow(Probe.validateLiveness(liveness)),
          target,
          (health, failure) => health === "failed" ? Effect.asVoid(Deferred.succeed(failed, failure)) : Effect.void
        )
      )
      assert.strictEqual((yield* Deferred.await(failed))?.reason, "TimedOut")
      const before = attempts
      yield* eventually("the next attempt is under way", () => attempts > before && running === 1)
      yield* Fiber.interrupt(watching)
      assert.deepStrictEqual([running, most], [0, 1], "never two at once, and none is left")
      const opened = () => lines().filter((line) => line.startsWith("open")).length
      yield* eventually("the connections are closed", () => lines().at(-1) === "closed 0", { detail: lines })
      assert.isAtMost(opened(), attempts)
    }))

  it.effect("a connection that nobody answers is given up at the timeout", () =>
    Effect.gen(function*() {
      const tree = yield* launch(server("accepts", 0, { arg: "1" }))
      const port = yield* portOf(tree)
      const sockets = () => process.getActiveResourcesInfo().filter((name) => name.startsWith("TCP")).length
      const before = sockets()
      // A stopped server takes no connection from its queue, and the system drops what does not fit in.
      yield* tree.signal("SIGSTOP")
      let outcome = "success"
      for (let count = 0; count < 20 && outcome === "success"; count++) {
        outcome = yield* Effect.match(check(Probe.tcp(port), undefined, 100), {
          onSuccess: () => "success",
          onFailure: (error) => error._tag === "ProbeFailure" ? error.reason : error.message
        })
      }
      assert.strictEqual(outcome, "TimedOut")
      yield* eventually("no socket is left", () => sockets() <= before, { within: 1000, detail: sockets })
    }))

  it.effect(
    "1,000 probes of every outcome leave no socket, no listener and no timer behind",
    () =>
      Effect.gen(function*() {
        const good = yield* launch(server("status", 0, { arg: "200" }))
        const silent = yield* launch(server("silent", 0))
        const endless = yield* launch(server("endless", 0))
        const [goodPort, silentPort, endlessPort] = [yield* portOf(good), yield* portOf(silent), yield* portOf(endless)]
        const free = yield* Effect.scoped(Effect.map(stranger({ port: 0, host: "127.0.0.1" }), portOfServer))
        const url = (port: number) => `http://127.0.0.1:${port}/`
        const round = Effect.gen(function*() {
          yield* check(Probe.tcp(goodPort), good)
          yield* check(Probe.http(url(goodPort)), undefined)
          yield* check(Probe.http({ url: url(goodPort), body: /path/ }), undefined)
          yield* Effect.flip(check(Probe.http({ url: url(goodPort), status: { min: 500, max: 500 } }), undefined))
          yield* Effect.flip(check(Probe.tcp(free), undefined))
          yield* Effect.flip(check(Probe.http(url(free)), undefined))
          yield* Effect.flip(check(Probe.http(url(silentPort)), undefined, 5))
          yield* check(Probe.http(url(endlessPort)), undefined)
          yield* check(Probe.http({ url: url(endlessPort), body: /x/ }), undefined)
          yield* Effect.flip(check(Probe.http(url(goodPort)), silent))
        })
        const held = () => ({
          resources: process.getActiveResourcesInfo().filter((name) => name !== "Immediate").length,
          listeners: process.eventNames().reduce((sum, name) => sum + process.listenerCount(name), 0)
        })
        const warnings: Array<Error> = []
        const onWarning = (warning: Error) => void warnings.push(warning)
        process.on("warning", onWarning)
        yield* Effect.addFinalizer(() => Effect.sync(() => process.off("warning", onWarning)))
        yield* round
        const before = held()
        for (let count = 0; count < 100; count++) yield* round
        yield* eventually("everything was given back", () => held().resources <= before.resources, { detail: held })
        assert.strictEqual(held().listeners, before.listeners)
        assert.deepStrictEqual(warnings, [])
      }),
    120_000
  )

  it.effect("a host that asks nothing by HTTP does not load it", () =>
    Effect.gen(function*() {
      const scratch = yield* Scratch.make
      const tree = yield* launch(server("status", 0, { arg: "200" }))
      const url = `http://127.0.0.1:${yield* portOf(tree)}/`
      const host = yield* startProgram({ program: ["probeHost", "lazy", url], scratch })
      yield* host.awaitLine("loaded")
      assert.deepStrictEqual(host.lines.slice(-2), ["not loaded", "loaded"])
    }))

  it.effect("K15: settings of a proxy are ignored", () =>
    Effect.gen(function*() {
      const scratch = yield* Scratch.make
      const proxy = yield* stranger({ port: 0, host: "127.0.0.1" })
      const asked: Array<string> = []
      proxy.on("connection", (socket: net.Socket) => {
        socket.once("data", (data: Buffer) => asked.push(data.toString().split(" ", 2).join(" ")))
      })
      const address = `http://127.0.0.1:${portOfServer(proxy)}`
      const tree = yield* launch(server("status", 0, { arg: "204" }))
      const url = `http://127.0.0.1:${yield* portOf(tree)}/`
      const host = yield* startProgram({
        program: ["probeHost", "proxied", url],
        scratch,
        env: {
          NODE_USE_ENV_PROXY: "1",
          HTTP_PROXY: address,
          HTTPS_PROXY: address,
          ALL_PROXY: address,
          http_proxy: address,
          https_proxy: address
        }
      })
      yield* host.awaitLine("probed")
      // Node's own client does ask the proxy, and gets its answer.
      assert.strictEqual(yield* host.awaitLine("node "), "200")
      assert.deepStrictEqual(asked, [`GET ${url}node`])
    }))
})

layer(PosixPlatform.layer, { excludeTestServices: true })("exec", (it) => {
  it.effect("code 0 is a success, another code is not", () =>
    Effect.gen(function*() {
      yield* check(Probe.exec(sh("exit 0")), undefined)
      const failure = yield* Effect.flip(check(Probe.exec(sh("exit 3", "secret")), undefined))
      assert(failure._tag === "ProbeFailure")
      assert.strictEqual(failure.message, "exec sh: exited with code 3 (ExitCode)")
    }))

  it.effect("peer 92: an attempt that leaves a grandchild is cleaned, whether it succeeds or hangs", () =>
    Effect.gen(function*() {
      const scratch = yield* Scratch.make
      const leaves = "setsid sh -c 'echo \"escaped $$\" >>\"$1\"; exec sleep 60' sh \"$1\" & " +
        "until grep -q escaped \"$1\"; do sleep 0.01; done"
      yield* check(Probe.exec(sh(leaves, scratch.report)), undefined)
      yield* scratch.awaitReported(1)
      yield* assertNoneLiving(scratch)
      const hangs = sh(
        "trap '' TERM; echo \"leader $$\" >>\"$1\"; sleep 60 & echo \"child $!\" >>\"$1\"; wait",
        scratch.report
      )
      const attempt = yield* Effect.forkScoped(reason(check(Probe.exec(hangs), undefined, 1000)))
      yield* scratch.awaitReported(3)
      assert.strictEqual(yield* Fiber.join(attempt), "TimedOut")
      yield* assertNoneLiving(scratch)
      const interrupted = yield* Effect.forkScoped(check(Probe.exec(hangs), undefined, 60_000))
      yield* scratch.awaitReported(5)
      yield* Fiber.interrupt(interrupted)
      yield* assertNoneLiving(scratch)
    }))

  it.effect("peer 93: a missing command is a failure with a reason of its own", () =>
    Effect.gen(function*() {
      const platform = yield* ProcessPlatform.ProcessPlatform
      const probe = Probe.exec(ChildProcess.make("treeline-no-such-program"))
      assert.strictEqual(yield* reason(check(probe, undefined)), "CommandMissing")
      const failed = yield* Deferred.make<Errors.ProbeFailure | undefined>()
      const liveness = Probe.liveness(probe, { interval: 1, initialDelay: 0, failureThreshold: 2 })
      yield* Effect.forkScoped(
        Probe.watch(
          Result.getOrThrow(Probe.validateLiveness(liveness)),
          { platform, tree: undefined },
          (health, failure) => health === "failed" ? Effect.asVoid(Deferred.succeed(failed, failure)) : Effect.void
        )
      )
      assert.strictEqual((yield* Deferred.await(failed))?.reason, "CommandMissing")
    }))
})

layer(PosixPlatform.layer, { excludeTestServices: true })("a host that is suspended", (it) => {
  const isStopped = (pid: number) => stateOf(pid)?.startsWith("T") === true

  it.effect("peer 97: an attempt that was under way is not blamed on the child", () =>
    Effect.gen(function*() {
      const scratch = yield* Scratch.make
      const host = yield* startProgram({ program: ["probeHost", "stopped", ""], scratch })
      yield* host.awaitLine("attempt 1")
      yield* eventually("the host is stopped", () => isStopped(host.identity.pid))
      // The time that passes is what is tested: far more than the timeout of 100 ms.
      yield* Effect.sleep(1500)
      host.signal("SIGCONT")
      yield* host.awaitLine("attempt 2")
      yield* host.awaitLine("healthy")
      assert.isFalse(host.lines.some((line) => line === "failed" || line === "degraded"), host.lines.join())
    }))

  it.effect("control for peer 97: with the host awake the same attempt fails", () =>
    Effect.gen(function*() {
      const scratch = yield* Scratch.make
      const host = yield* startProgram({ program: ["probeHost", "hung", ""], scratch })
      yield* host.awaitLine("failed")
    }))

  it.effect("peer 97: nor does the limit of readiness run out", () =>
    Effect.gen(function*() {
      const scratch = yield* Scratch.make
      const go = scratch.file("go")
      const host = yield* startProgram({ program: ["probeHost", "line", go], scratch })
      yield* eventually("the host is stopped", () => isStopped(host.identity.pid))
      // The time that passes is what is tested: more than the limit of 2 s.
      yield* Effect.sleep(2300)
      host.signal("SIGCONT")
      fs.writeFileSync(go, "")
      yield* host.awaitLine("ready")
    }))
})
