/** One supervised child on real processes: how it ends, comes back, gets ready, and is stopped. */
import { assert, layer } from "@effect/vitest"
import { Child, ExitStatus, Probe, Restart, ShutdownPlan } from "@treeline/core"
import { PosixPlatform } from "@treeline/platform-posix"
import { Deferred, Effect, Exit, Fiber, Layer, References, Scope, Stream } from "effect"
import { ChildProcess } from "effect/process"
import * as fs from "node:fs"
import { setFlagsFromString } from "node:v8"
import { runInNewContext } from "node:vm"
import { brief, event, freePort, kill, nameOf, names, pidOf, service, sh, soon } from "../support/Children.ts"
import { eventually, stays } from "../support/Eventually.ts"
import { treeCommand } from "../support/Host.ts"
import { identify, stateOf } from "../support/Processes.ts"
import * as Scratch from "../support/Scratch.ts"
import { assertNoneLiving } from "../support/Trees.ts"

const platform = Layer.mergeAll(
  PosixPlatform.layer,
  Layer.succeed(References.MinimumLogLevel, "None")
)

/** A role of tree.sh as a command. */
const role = (name: string, scratch: Scratch.Scratch) => {
  const [program, ...args] = treeCommand(name, scratch)
  return ChildProcess.make(program!, args)
}

const sleeper = ChildProcess.make("sleep", ["60"])

layer(platform, { excludeTestServices: true })("an end and the next start", (it) => {
  // Says "overlap" when a process of an earlier incarnation lives, leaves one that ignores SIGTERM, and goes on as $2 says.
  const successor = (scratch: Scratch.Scratch, rest: string) =>
    sh(
      `while read -r _ pid; do
         read -r _ _ state _ 2>/dev/null </proc/$pid/stat || continue
         case $state in Z | X) ;; *) echo "overlap $pid" >>"$1" ;; esac
       done <"$1"
       (trap '' TERM; echo "left $(exec sh -c 'echo $PPID')" >>"$1"; exec sleep 60) &
       until [ "$(grep -c '^left ' "$1")" -gt "$(grep -c '^leader ' "$1")" ]; do sleep 0.01; done
       echo "leader $$" >>"$1"
       ${rest}`,
      scratch.report
    )

  /** The ends of the first incarnation, when the second is ready. */
  const firstEnds = (child: Child.Child) =>
    Effect.map(names(child, "Ready", { in: 2, of: 1 }), (all) => all.filter((name) => name.startsWith("Ended")))

  it.effect("peer 5: leftovers of a leader that was killed are swept before the restart; one end event", () =>
    Effect.gen(function*() {
      const scratch = yield* Scratch.make
      const child = yield* Child.start(Child.make("app", {
        command: successor(scratch, "echo up; exec sleep 60"),
        readiness: Probe.line("up"),
        restart: Restart.permanent({ backoff: soon() }),
        shutdown: brief
      }))
      yield* kill(yield* pidOf(child, 1), "SIGKILL")
      yield* pidOf(child, 2)
      assert.deepStrictEqual(scratch.reported().map(({ name }) => name), ["left", "leader", "left", "leader"])
      assert.deepStrictEqual(scratch.living().map(({ name }) => name), ["left", "leader"])
      assert.deepStrictEqual(yield* firstEnds(child), ["Ended killed by SIGKILL"])
      yield* child.stop()
      yield* assertNoneLiving(scratch)
    }))

  it.effect("peer 6: leftovers of a leader that failed are swept before the restart; one end event", () =>
    Effect.gen(function*() {
      const scratch = yield* Scratch.make
      const child = yield* Child.start(Child.make("app", {
        command: successor(scratch, "[ \"$(grep -c '^leader ' \"$1\")\" -gt 1 ] || exit 3; echo up; exec sleep 60"),
        readiness: Probe.line("up"),
        restart: Restart.transient({ backoff: soon() }),
        shutdown: brief
      }))
      yield* pidOf(child, 2)
      assert.deepStrictEqual(scratch.reported().map(({ name }) => name), ["left", "leader", "left", "leader"])
      assert.deepStrictEqual(scratch.living().map(({ name }) => name), ["left", "leader"])
      assert.deepStrictEqual(yield* firstEnds(child), ["Ended exited with code 3"])
    }))

  it.effect("A3: a child that was killed is replaced by a fresh one that lives", () =>
    Effect.gen(function*() {
      const child = yield* Child.start(Child.make("app", {
        command: sleeper,
        restart: Restart.permanent({ backoff: soon() })
      }))
      const first = yield* pidOf(child, 1)
      yield* kill(first, "SIGKILL")
      const second = yield* pidOf(child, 2)
      assert.notStrictEqual(second, first)
      assert.isDefined(identify(second))
      assert.strictEqual((yield* child.status).restarts, 1)
    }))

  it.effect("P29: a child that fails once is restarted, then serves", () =>
    Effect.gen(function*() {
      const scratch = yield* Scratch.make
      const child = yield* Child.start(Child.make("app", {
        command: sh("if mkdir \"$1\"; then exit 1; fi; echo serving; exec sleep 60", scratch.file("once")),
        readiness: Probe.line("serving"),
        restart: Restart.permanent({ backoff: soon() })
      }))
      yield* child.awaitReady
      assert.strictEqual((yield* child.status).incarnation, 2)
    }))

  it.effect("P30: a clean end of a transient child is no reason for a restart", () =>
    Effect.gen(function*() {
      const child = yield* Child.start(Child.make("job", {
        command: sh("exit 0"),
        restart: Restart.transient({ backoff: soon() })
      }))
      assert.deepStrictEqual(yield* child.awaitEnd, {
        _tag: "Stopped",
        end: { _tag: "Exited", status: ExitStatus.exited(0) }
      })
      assert.deepStrictEqual(yield* names(child, "Stopped"), [
        "Starting",
        "Running",
        "Ready",
        "Stopping",
        "Ended exited with code 0",
        "Stopped"
      ])
    }))

  it.effect("P32: a throw in the very start counts as a failure and is tried again", () =>
    Effect.gen(function*() {
      let starts = 0
      const child = yield* Child.start(Child.effect("app", (ready) => {
        if (++starts < 3) throw new Error("not yet")
        return Effect.andThen(ready, Effect.never)
      }, { restart: Restart.permanent({ backoff: soon() }) }))
      yield* child.awaitReady
      assert.strictEqual((yield* child.status).incarnation, 3)
    }))

  it.effect("P53: after it has failed for good a start gives a fresh run", () =>
    Effect.gen(function*() {
      const scratch = yield* Scratch.make
      const child = yield* Child.start(Child.make("app", {
        command: sh("if mkdir \"$1\"; then exit 1; fi; exec sleep 60", scratch.file("once")),
        restart: Restart.temporary()
      }))
      const end = yield* child.awaitEnd
      assert.strictEqual(end._tag === "Failed" ? end.error.reason : end._tag, "exited with code 1; it is not restarted")
      yield* child.start
      yield* pidOf(child, 2)
      assert.strictEqual((yield* child.status).state._tag, "Ready")
    }))

  it.effect("P51: an end before readiness never was ready, an end after it was", () =>
    Effect.gen(function*() {
      const make = (id: string, script: string) =>
        Child.start(Child.make(id, {
          command: sh(script),
          readiness: Probe.line("up"),
          restart: Restart.temporary()
        }))
      const before = yield* make("before", "exit 5")
      const failed = yield* Effect.flip(before.awaitReady)
      assert.strictEqual(failed._tag, "ChildFailed")
      assert.match(failed.message, /code 5/)
      assert.notInclude(yield* names(before, "Failed"), "Ready")
      const after = yield* make("after", "echo up; exit 5")
      yield* event(after, "Ready")
      yield* after.awaitEnd
      assert.deepStrictEqual((yield* after.status).lastEnd, { _tag: "Exited", status: ExitStatus.exited(5) })
    }))
})

layer(platform, { excludeTestServices: true })("readiness and liveness", (it) => {
  it.effect("peer 87: 20 children that announce themselves on a descriptor and die at once were ready, then ended", () =>
    Effect.gen(function*() {
      const paths = yield* Effect.forEach(
        Array.from({ length: 20 }, (_, index) => index),
        (index) =>
          Effect.gen(function*() {
            const child = yield* Child.start(Child.make(`app${index}`, {
              command: sh("echo >&3; exit 4"),
              readiness: Probe.fd(3),
              restart: Restart.temporary()
            }))
            yield* child.awaitEnd
            return (yield* names(child, "Failed")).join(" ")
          }),
        { concurrency: 4 }
      )
      assert.deepStrictEqual(
        [...new Set(paths)],
        ["Starting Running Ready Stopping Ended exited with code 4 Failed"]
      )
    }))

  it.effect("peer 90, P48, A16: a readiness that times out tears the tree down, and counts; no zombie is left", () =>
    Effect.gen(function*() {
      const scratch = yield* Scratch.make
      const child = yield* Child.start(Child.make("app", {
        command: role("grandchild", scratch),
        readiness: Probe.readiness(Probe.line("never said"), { within: "200 millis" }),
        restart: Restart.permanent({ backoff: soon({ times: 1 }) })
      }))
      const error = yield* Effect.flip(child.awaitReady)
      assert.strictEqual(error._tag, "ChildFailed")
      assert.match(error.message, /not ready within 200 ms: .*restarted 1 times in a row/)
      for (const incarnation of [1, 2]) {
        const steps = yield* names(child, "Ended", { in: incarnation, of: incarnation })
        assert.deepStrictEqual(steps.slice(0, 3), ["Starting", "Running", "Stopping"])
        // The reason comes first, and it is not the exit that follows from it.
        const { change } = yield* event(child, "Stopping", incarnation)
        assert(change._tag === "State" && change.to._tag === "Stopping")
        assert.match(change.to.why, /^not ready/)
        assert.match(steps[3]!, /^Ended not ready/)
        const { pid } = change.to
        yield* eventually("the leader is no zombie", () => stateOf(pid!) === undefined)
      }
      yield* assertNoneLiving(scratch)
    }))

  it.effect("an output that ends while its process lives on is a readiness that failed", () =>
    Effect.gen(function*() {
      const child = yield* Child.start(Child.make("app", {
        command: sh("exec >/dev/null 2>&1; exec sleep 60"),
        readiness: Probe.line("never said"),
        restart: Restart.temporary()
      }))
      assert.match((yield* Effect.flip(child.awaitReady)).message, /not ready.*Ended/)
    }))

  it.effect("P31: a readiness that is announced twice counts once", () =>
    Effect.gen(function*() {
      const child = yield* Child.start(Child.make("app", {
        command: sh("echo up; echo up >&2; echo up; exit 0"),
        readiness: Probe.line("up"),
        restart: Restart.temporary()
      }))
      const twice = yield* Child.start(
        Child.effect("effect", (ready) => Effect.andThen(ready, ready), { restart: Restart.temporary() })
      )
      for (const each of [child, twice]) {
        assert.strictEqual((yield* names(each, "Stopped")).filter((name) => name === "Ready").length, 1)
      }
    }))

  it.effect("K1: a listener that is lost is a failure, and the restart policy brings it back", () =>
    Effect.gen(function*() {
      const scratch = yield* Scratch.make
      const answers = scratch.file("answers")
      fs.writeFileSync(answers, "200")
      const port = yield* freePort
      const child = yield* Child.start(Child.make("app", {
        command: service(port, answers),
        readiness: Probe.tcp(port),
        liveness: Probe.liveness(Probe.tcp(port), { interval: "50 millis", failureThreshold: 1 }),
        restart: Restart.permanent({ backoff: soon() })
      }))
      const first = yield* pidOf(child, 1)
      yield* event(child, "Health healthy", 1)
      yield* kill(first, "SIGUSR2")
      const second = yield* pidOf(child, 2)
      assert.match((yield* names(child, "Ended", { of: 1 })).at(-1) ?? "", /^Ended unhealthy: .*Refused/)
      const answer = yield* Effect.promise(async () => (await fetch(`http://127.0.0.1:${port}/`)).text())
      assert.strictEqual(Number(answer), second)
    }))

  it.effect("K2: one failed health check is tolerated, the second in a row is not", () =>
    Effect.gen(function*() {
      const scratch = yield* Scratch.make
      const answers = scratch.file("answers")
      // Ready; one failure; well again; two failures; ready again.
      fs.writeFileSync(answers, "200 500 200 500 500 200")
      const port = yield* freePort
      const health = Probe.http(`http://127.0.0.1:${port}/health`)
      const child = yield* Child.start(Child.make("app", {
        command: service(port, answers),
        readiness: Probe.readiness(Probe.line("listening")),
        liveness: Probe.liveness(health, {
          initialDelay: 0,
          interval: "50 millis",
          timeout: "5 seconds",
          failureThreshold: 2
        }),
        restart: Restart.permanent({ backoff: soon() })
      }))
      yield* event(child, "Health healthy", 2)
      const first = yield* names(child, "Ended", { of: 1 })
      assert.deepStrictEqual(first.slice(2, 7), [
        "Ready",
        "Health healthy",
        "Health degraded",
        "Health healthy",
        "Health degraded"
      ])
      assert.match(first.at(-1) ?? "", /^Ended unhealthy: .*WrongStatus/)
    }))

  it.effect("peer 92: what an exec probe leaves behind is gone before the next attempt and after the stop", () =>
    Effect.gen(function*() {
      const scratch = yield* Scratch.make
      const probe = sh("sleep 60 & echo \"probe $!\" >>\"$1\"", scratch.report)
      const child = yield* Child.start(Child.make("app", {
        command: sleeper,
        liveness: Probe.liveness(Probe.exec(probe), { interval: "20 millis", timeout: "5 seconds" }),
        shutdown: ShutdownPlan.kill
      }))
      yield* scratch.awaitReported(4)
      assert.isAtMost(scratch.living().length, 1)
      yield* child.stop()
      yield* assertNoneLiving(scratch)
      assert.strictEqual((yield* child.status).incarnation, 1)
    }))

  it.effect("peer 95: probes stop when stopping begins, and a late failure restarts nothing", () =>
    Effect.gen(function*() {
      let asked = 0
      let healthy = true
      const child = yield* Child.start(Child.make("app", {
        command: sh("trap '' TERM; echo up; sleep 60"),
        readiness: Probe.line("up"),
        liveness: Probe.liveness(
          Probe.effect(
            "count",
            Effect.suspend(() => {
              asked++
              return healthy ? Effect.void : Effect.fail("late")
            })
          ),
          { interval: "10 millis", failureThreshold: 1 }
        ),
        shutdown: brief
      }))
      yield* eventually("it has been asked", () => asked > 3)
      const stopping = yield* Effect.forkChild(child.stop(), { startImmediately: true })
      yield* event(child, "Stopping")
      const then = asked
      healthy = false
      yield* Fiber.join(stopping)
      assert.strictEqual(asked, then)
      assert.deepStrictEqual((yield* names(child, "Stopped")).slice(-3), ["Stopping", "Ended as asked", "Stopped"])
    }))
})

layer(platform, { excludeTestServices: true })("stop and restart", (it) => {
  it.effect("peer 71: a stop in the backoff ends at once, and nothing is started later", () =>
    Effect.gen(function*() {
      const scratch = yield* Scratch.make
      const child = yield* Child.start(Child.make("app", {
        command: sh("echo \"app $$\" >>\"$1\"; exit 1", scratch.report),
        restart: Restart.permanent({ backoff: soon({ ms: 600 }) })
      }))
      const { change } = yield* event(child, "BackingOff")
      assert(change._tag === "State" && change.to._tag === "BackingOff")
      yield* child.stop()
      assert.isBelow(Date.now(), change.to.until)
      assert.deepStrictEqual((yield* child.status).state, { _tag: "Stopped", end: null })
      yield* stays("nothing is started", () => scratch.reported().length === 1, change.to.until - Date.now() + 200)
      assert.strictEqual((yield* child.status).incarnation, 1)
    }))

  it.effect("peer 72, P34: a stop while readiness is pending: the tree ends, who waits is told why", () =>
    Effect.gen(function*() {
      const scratch = yield* Scratch.make
      const child = yield* Child.start(Child.make("app", {
        command: role("grandchild", scratch),
        readiness: Probe.line("never said")
      }))
      const waiting = yield* Effect.forkChild(Effect.flip(child.awaitReady), { startImmediately: true })
      yield* scratch.awaitReported(3)
      yield* child.stop()
      assert.strictEqual((yield* Fiber.join(waiting))._tag, "ChildStopped")
      yield* assertNoneLiving(scratch)
    }))

  it.effect("peer 72: a scope that closes while readiness is pending tells those who wait", () =>
    Effect.gen(function*() {
      const scratch = yield* Scratch.make
      const scope = yield* Scope.make()
      const child = yield* Scope.provide(
        Child.start(Child.make("app", { command: role("plain", scratch), readiness: Probe.line("never said") })),
        scope
      )
      const waiting = yield* Effect.forkChild(Effect.flip(child.awaitReady), { startImmediately: true })
      yield* scratch.awaitReported(1)
      yield* Scope.close(scope, Exit.void)
      assert.strictEqual((yield* Fiber.join(waiting))._tag, "ChildStopped")
      assert.strictEqual((yield* Effect.flip(child.restart))._tag, "ChildClosed")
      yield* assertNoneLiving(scratch)
    }))

  it.effect("peer 74: two restarts at once are one new incarnation", () =>
    Effect.gen(function*() {
      const scratch = yield* Scratch.make
      const child = yield* Child.start(Child.make("app", { command: role("plain", scratch), shutdown: brief }))
      yield* scratch.awaitReported(1)
      const numbers = yield* Effect.all([child.restart, child.restart, child.restart], { concurrency: "unbounded" })
      assert.deepStrictEqual(numbers, [2, 2, 2])
      yield* scratch.awaitReported(2)
      yield* child.stop()
      assert.strictEqual(scratch.reported().length, 2)
    }))

  it.effect("P44: stops at once and again end it once", () =>
    Effect.gen(function*() {
      const scratch = yield* Scratch.make
      const child = yield* Child.start(Child.make("app", { command: role("asked", scratch), shutdown: brief }))
      yield* scratch.awaitNamed("asked")
      yield* Effect.all(Array.from({ length: 5 }, () => child.stop()), { concurrency: "unbounded" })
      yield* child.stop()
      assert.strictEqual(scratch.reported().filter(({ name }) => name === "asked-to-end").length, 1)
      assert.strictEqual((yield* names(child, "Stopped")).filter((name) => name === "Ended as asked").length, 1)
    }))

  it.effect("P45, P35: who ignores the polite steps, or whose step never ends, is killed within the plan", () =>
    Effect.gen(function*() {
      const scratch = yield* Scratch.make
      const child = yield* Child.start(Child.make("app", {
        command: role("stubborn", scratch),
        shutdown: ShutdownPlan.make([
          ShutdownPlan.run("ask nicely", Effect.never, "100 millis"),
          ShutdownPlan.signal("SIGTERM", { within: "200 millis" })
        ])
      }))
      yield* scratch.awaitReported(2)
      const steps: Array<string> = []
      yield* Effect.forkScoped(
        Stream.runForEach(child.events, ({ change }) =>
          Effect.sync(() => {
            if (change._tag === "State" && change.to._tag === "Stopping" && change.to.step !== "") {
              steps.push(change.to.step)
            }
          })),
        { startImmediately: true }
      )
      const startedAt = performance.now()
      yield* child.stop()
      const took = performance.now() - startedAt
      assert.isAtLeast(took, 300)
      assert.isBelow(took, 3_000)
      assert.deepStrictEqual(steps, ["ask nicely", "SIGTERM", "kill"])
      yield* assertNoneLiving(scratch)
    }))

  it.effect("P35: an effect that can't be interrupted delays a stop for as long as its plan says", () =>
    Effect.gen(function*() {
      const release = Deferred.makeUnsafe<void>()
      const child = yield* Child.start(Child.effect("app", Effect.uninterruptible(Deferred.await(release)), {
        shutdown: { steps: [], cap: "100 millis" }
      }))
      yield* event(child, "Ready")
      yield* child.stop()
      const { state } = yield* child.status
      assert.match(state._tag === "Failed" ? state.error.reason : state._tag, /does not end/)
      // Another one beside it would be worse than none, until it has ended.
      assert.strictEqual((yield* Effect.flip(child.start))._tag, "ChildFailed")
      Deferred.doneUnsafe(release, Exit.void)
      yield* child.start
      yield* event(child, "Ready", 2)
    }))

  it.effect("P49: a subscriber that stops a child while it is being launched leaves nothing", () =>
    Effect.gen(function*() {
      const scratch = yield* Scratch.make
      const gate = Deferred.makeUnsafe<void>()
      const spec = Child.make("app", { command: role("grandchild", scratch), shutdown: brief })
      const child = yield* Child.start({
        ...spec,
        body: {
          ...spec.body,
          // The tree is there, and the launch has not said so yet.
          start: (options) => Effect.tap(spec.body.start(options), () => Deferred.await(gate))
        }
      })
      yield* event(child, "Starting")
      yield* scratch.awaitReported(3)
      const stopping = yield* Effect.forkChild(child.stop(), { startImmediately: true })
      yield* event(child, "Stopping")
      Deferred.doneUnsafe(gate, Exit.void)
      yield* Fiber.join(stopping)
      assert.deepStrictEqual(yield* names(child, "Stopped"), ["Starting", "Stopping", "Ended as asked", "Stopped"])
      yield* assertNoneLiving(scratch)
    }))

  it.effect("P50: what a child says after a stop has begun is not heard", () =>
    Effect.gen(function*() {
      const scratch = yield* Scratch.make
      const child = yield* Child.start(Child.make("app", {
        command: sh("trap 'echo up; exit 7' TERM; echo \"app $$\" >>\"$1\"; sleep 60 & wait", scratch.report),
        readiness: Probe.line("up"),
        restart: Restart.permanent({ backoff: soon() })
      }))
      const waiting = yield* Effect.forkChild(Effect.flip(child.awaitReady), { startImmediately: true })
      yield* scratch.awaitReported(1)
      yield* child.stop()
      assert.strictEqual((yield* Fiber.join(waiting))._tag, "ChildStopped")
      assert.deepStrictEqual(yield* names(child, "Stopped"), [
        "Starting",
        "Running",
        "Stopping",
        "Ended as asked",
        "Stopped"
      ])
    }))

  it.effect("P52: a stop shares the end of a child that has failed", () =>
    Effect.gen(function*() {
      const scratch = yield* Scratch.make
      const child = yield* Child.start(Child.make("app", {
        command: role("stubborn", scratch),
        readiness: Probe.readiness(Probe.line("never said"), { within: "300 millis" }),
        restart: Restart.permanent({ backoff: soon() }),
        shutdown: brief
      }))
      yield* event(child, "Stopping")
      yield* child.stop()
      assert.deepStrictEqual(yield* names(child, "Stopped"), [
        "Starting",
        "Running",
        "Stopping",
        "Ended as asked",
        "Stopped"
      ])
      yield* assertNoneLiving(scratch)
    }))

  it.effect("A14: interrupting one start ends that child only", () =>
    Effect.gen(function*() {
      const scratch = yield* Scratch.make
      const spec = (id: string) =>
        Child.make(id, { command: role("plain", scratch), readiness: Probe.line("never said") })
      const other = yield* Child.start(spec("other"))
      const others = [...yield* scratch.awaitReported(1)]
      const starting = yield* Effect.forkChild(
        Effect.scoped(Effect.flatMap(Child.start(spec("app")), (child) => child.awaitReady)),
        { startImmediately: true }
      )
      yield* scratch.awaitReported(2)
      yield* Fiber.interrupt(starting)
      assert.deepStrictEqual(scratch.living(), others)
      assert.strictEqual((yield* other.status).state._tag, "Running")
    }))

  it.effect("A15: a limit on the start bounds the wait, and the child outlives it", () =>
    Effect.gen(function*() {
      const child = yield* Child.start(Child.make("app", {
        command: sh("sleep 0.3; echo up; exec sleep 60"),
        readiness: Probe.line("up")
      }))
      assert.isTrue(Exit.isFailure(yield* Effect.exit(Effect.timeout(child.awaitReady, "50 millis"))))
      yield* child.awaitReady
      assert.strictEqual((yield* child.status).incarnation, 1)
    }))
})

/** Everything that a leak would leave in this process. */
const holdings = () => {
  const resources: Record<string, number> = {}
  for (const kind of process.getActiveResourcesInfo()) resources[kind] = (resources[kind] ?? 0) + 1
  const listeners = Object.fromEntries(
    process.eventNames().map((name) => [String(name), process.listenerCount(name)])
  )
  return { descriptors: fs.readdirSync("/proc/self/fd").length, ...resources, ...listeners }
}

setFlagsFromString("--expose-gc")
const collectGarbage = runInNewContext("gc") as () => void

const heap = (): number => {
  collectGarbage()
  collectGarbage()
  return process.memoryUsage().heapUsed
}

layer(platform, { excludeTestServices: true })("nothing leaks", (it) => {
  it.effect(
    "P33: no growth: 1,000 restarts of one real child leave descriptors, listeners, timers and heap where they were",
    () =>
      Effect.gen(function*() {
        const scratch = yield* Scratch.make
        const endless = scratch.file("endless")
        const flag = scratch.file("flag")
        fs.writeFileSync(endless, "#!/bin/sh\n[ ! -e \"$1\" ] || exit 1\necho up\nexec sleep 60\n", { mode: 0o755 })
        const child = yield* Child.start(Child.make("app", {
          command: ChildProcess.make(endless, [flag]),
          readiness: Probe.line("up"),
          liveness: Probe.liveness(Probe.effect("well", Effect.void)),
          restart: Restart.permanent({ backoff: soon({ ms: 1 }) })
        }))
        yield* pidOf(child, 1)
        /** Lets it crash until an incarnation, and looks at what this process holds while the next one lives. */
        const until = Effect.fn(function*(incarnation: number) {
          const seen = (name: string) =>
            child.events.pipe(
              Stream.takeUntil((event) => event.incarnation >= incarnation && nameOf(event) === name),
              Stream.runDrain
            )
          fs.writeFileSync(flag, "")
          yield* child.signal("SIGKILL")
          yield* seen("Starting")
          fs.rmSync(flag)
          yield* seen("Ready")
          return { holds: holdings(), heap: heap() }
        })
        const before = yield* until(100)
        const after = yield* until(1_100)
        assert.isAtLeast((yield* child.status).incarnation, 1_100)
        assert.deepStrictEqual(after.holds, before.holds)
        const growth = after.heap - before.heap
        console.log(`heap after 1,000 restarts: ${growth} bytes more`)
        // An incarnation that is kept is more than that.
        assert.isBelow(growth, 3_000_000)
      }),
    180_000
  )
})
