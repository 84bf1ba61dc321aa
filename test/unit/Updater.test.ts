/** The updater on a system of its own: when passes are made, and what becomes of one that can't do its work. */
import { assert, describe, it } from "@effect/vitest"
import { Claim, Daemon, Kept, type ManagedInstall, PidRecord, Updater, UpdateRecord } from "@treeline/core/daemon"
import { LaunchError, UpdateFetchFailed } from "@treeline/core/Errors"
import { equals, type ProcessIdentity } from "@treeline/core/ProcessIdentity"
import { ProcessPlatform } from "@treeline/core/ProcessPlatform"
import type { ProcessTree } from "@treeline/core/ProcessTree"
import { Clock, Deferred, Effect, Exit, Fiber, Option, Result, Schema, Scope } from "effect"
import { TestClock } from "effect/testing"
import { eventually } from "../support/Eventually.ts"
import { MemoryFolder, Table } from "../support/MemoryFolder.ts"

/** Lets what waits for nothing but the event loop go on. */
const settle = Effect.promise(async () => {
  for (let turn = 0; turn < 30; turn++) await new Promise((resolve) => setImmediate(resolve))
})

/** A system with a managed install in memory. Ids of versions are their names; a daemon says the one that it is of. */
const make = Effect.gen(function*() {
  const clock = yield* Clock.Clock
  const table = new Table()
  const files = new MemoryFolder()
  const folder = files.asSeen()
  const world = {
    /** What a fetch finds. */
    published: "one",
    current: "one" as string | null,
    /** Versions that do not start. */
    broken: new Set<string>(),
    /** What a program answers to `--version`. */
    version: "1.0.0",
    /** Processes may not be signalled. */
    denied: false,
    fetches: 0,
    launches: [] as Array<string>,
    calls: [] as Array<string>
  }
  const daemons: Array<{ readonly identity: ProcessIdentity; readonly scope: Scope.Closeable }> = []
  const answer = (text: string) =>
    ({
      exited: Effect.succeed({ _tag: "Exited", code: 0 }),
      drained: Effect.succeed({ bytes: text.length, truncated: false }),
      stdout: { tail: Effect.succeed(new TextEncoder().encode(text)) }
    }) as unknown as ProcessTree
  const platform = ProcessPlatform.of(
    {
      ...table.platform,
      clock: Effect.succeed(clock),
      launch: () => Effect.sync(() => answer(`app ${world.version}\n`)),
      signalProcess: (identity, signal) =>
        Effect.gen(function*() {
          world.calls.push(`${signal} ${identity.pid}`)
          if (world.denied) return "Denied"
          const found = daemons.find((daemon) => equals(daemon.identity, identity))
          if (found !== undefined) yield* Scope.close(found.scope, Exit.void)
          table.end(identity)
          return "Sent"
        })
    } as Partial<ProcessPlatform["Service"]> as ProcessPlatform["Service"]
  )
  const version = (id: string): ManagedInstall.Version => ({ id, path: `/install/${id}` })
  const install: ManagedInstall.ManagedInstall = {
    path: "/install",
    current: Effect.sync(() => Option.map(Option.fromNullOr(world.current), version)),
    versions: Effect.succeed(["one", "two", "three"]),
    stage: (fetch) => Effect.as(fetch("/install/staging"), version(world.published)),
    switchTo: (id) =>
      Effect.sync(() => {
        world.calls.push(`switch ${id}`)
        world.current = id
      }),
    prune: () => Effect.succeed([]),
    sweep: Effect.void,
    locate: (id, program) => Effect.succeed(`/install/${id}/${program}`),
    versionOf: (file) => Option.fromUndefinedOr(/^\/install\/(\w+)\/app$/.exec(file)?.[1])
  }
  let pid = 100
  const daemon: Daemon.Daemon = {
    folder,
    self: table.start(10),
    launch: () =>
      Effect.gen(function*() {
        const id = world.current ?? ""
        world.launches.push(id)
        if (world.broken.has(id)) {
          return yield* new LaunchError({ command: "app", reason: "NotExecutable", detail: `${id} is broken` })
        }
        const identity = table.start(++pid)
        const scope = yield* Scope.make()
        const record = yield* PidRecord.take({ folder, platform }, identity, {
          version: "1.0.0",
          program: `/install/${id}/app`,
          control: null,
          config: null,
          grace: 1000
        }).pipe(Scope.provide(scope), Effect.orDie)
        yield* Effect.orDie(record.ready())
        daemons.push({ identity, scope })
        return {
          pid: identity.pid,
          ended: Effect.never,
          errors: Effect.succeed({ bytes: new Uint8Array(), complete: true })
        }
      }),
    ask: Effect.suspend(() => {
      const last = daemons.at(-1)
      if (last === undefined) return Effect.succeedNone
      return Effect.map(
        platform.standing(last.identity),
        (standing) => standing === "Alive" ? Option.some({ pid: last.identity.pid, version: "1.0.0" }) : Option.none()
      )
    })
  }
  const options: Updater.Options = {
    daemon,
    install,
    program: "app",
    fetch: () => Effect.sync(() => void world.fetches++),
    supervision: {
      pause: Effect.sync(() => void world.calls.push("pause")),
      resume: Effect.sync(() => void world.calls.push("resume"))
    }
  }
  const provide = Effect.provideService(ProcessPlatform, platform)
  return { world, table, files, folder, platform, options, daemon, provide }
})

const failing = new UpdateFetchFailed({
  command: "fetch",
  reason: "Failed",
  status: null,
  within: null,
  detail: "no network",
  outputTail: ""
})

describe("the loop of an updater", () => {
  /** The minutes at which passes are made within some minutes, and how they went. */
  const passes = (within: number, more: (world: { fetches: number }) => Partial<Updater.RunOptions>) =>
    Effect.gen(function*() {
      const { options, provide, world, files } = yield* make
      const made: Array<[minute: number, status: string]> = []
      const fiber = yield* Effect.forkChild(provide(Updater.run({
        ...options,
        version: "1.0.0",
        jitter: 0,
        ...more(world),
        onPass: (result) =>
          Effect.map(Clock.currentTimeMillis, (now) => {
            made.push([now / 60_000, Result.isSuccess(result) ? result.success.status : result.failure._tag])
          })
      })))
      yield* settle
      for (let minute = 0; minute < within; minute++) {
        yield* TestClock.adjust("1 minute")
        yield* settle
      }
      yield* Fiber.interrupt(fiber)
      assert.isFalse(files.names.some((name) => name.startsWith("updater")), "its claim has gone")
      return made
    })

  it.effect("C10: first after 5 minutes, then every 60", () =>
    Effect.gen(function*() {
      assert.deepStrictEqual(yield* passes(130, () => ({})), [[5, "noUpdate"], [65, "noUpdate"], [125, "noUpdate"]])
    }), 20_000)

  it.effect("after failures sooner, then later and later, and as before after a success", () =>
    Effect.gen(function*() {
      const made = yield* passes(100, (world) => ({
        fetch: () => Effect.suspend(() => ++world.fetches <= 3 ? Effect.fail(failing) : Effect.void)
      }))
      assert.deepStrictEqual(made, [
        [5, "UpdateFetchFailed"],
        [10, "UpdateFetchFailed"],
        [20, "UpdateFetchFailed"],
        [40, "noUpdate"],
        [100, "noUpdate"]
      ])
    }), 20_000)

  it.effect("the kill switch is asked at each pass, and nothing is fetched meanwhile", () =>
    Effect.gen(function*() {
      let fetches = 0
      const made = yield* passes(130, () => ({
        fetch: () => Effect.sync(() => void fetches++),
        enabled: Effect.map(Clock.currentTimeMillis, (now) => now > 70 * 60_000)
      }))
      assert.deepStrictEqual(made, [[5, "disabled"], [65, "disabled"], [125, "noUpdate"]])
      assert.strictEqual(fetches, 1)
    }), 20_000)

  it.effect("times that can't be are refused", () =>
    Effect.gen(function*() {
      const { options, provide } = yield* make
      for (const wrong of [{ jitter: 2 }, { jitter: Number.NaN }, { interval: 10 }, { first: -1 }]) {
        const error = yield* Effect.flip(provide(Updater.run({ ...options, version: "1", ...wrong })))
        assert.strictEqual(error._tag, "InvalidSpec")
      }
    }))
})

describe("a pass", () => {
  const started = Effect.gen(function*() {
    const all = yield* make
    const { daemon, provide, world } = all
    yield* provide(Daemon.start(daemon))
    world.launches.length = 0
    world.published = "two"
    return all
  })

  it.effect("C29, C10: pauses, switches and restarts in the turn of the daemon's commands", () =>
    Effect.gen(function*() {
      const { options, provide, world } = yield* started
      const phases: Array<string> = []
      const outcome = yield* provide(
        Updater.update({ ...options, onPhase: (phase) => Effect.sync(() => void phases.push(phase)) })
      )
      assert.deepStrictEqual([outcome.status, outcome.current, outcome.restarted], ["updated", "two", true])
      assert.deepStrictEqual(world.calls, ["pause", "switch two", "SIGTERM 101", "resume"])
      assert.deepStrictEqual(world.launches, ["two"])
      assert.deepStrictEqual(phases, ["fetching", "pausing", "switching", "restarting", "validating", "done"])
    }))

  it.effect("K17: one that can't stop the old daemon resumes supervision and starts nothing", () =>
    Effect.gen(function*() {
      const { folder, options, provide, world } = yield* started
      world.denied = true
      const outcome = yield* provide(Updater.update(options))
      assert.deepStrictEqual([outcome.status, outcome.current, world.current], ["rolledBack", "one", "one"])
      assert.deepStrictEqual(world.launches, [])
      assert.strictEqual(world.calls.at(-1), "resume")
      const record = yield* UpdateRecord.read(folder)
      assert.deepStrictEqual([record.phase, record.rejected], ["done", []], "not the fault of the version")
    }))

  it.effect("K17: when somebody answers who is no daemon, nothing is started beside it and no version is at fault", () =>
    Effect.gen(function*() {
      const { folder, options, provide, world } = yield* started
      const daemon = { ...options.daemon, ask: Effect.succeedSome({ pid: 7, version: "0.9.0" }) }
      const error = yield* Effect.flip(provide(Updater.update({ ...options, daemon })))
      assert.strictEqual(error._tag, "RollbackFailed")
      assert.match(error.message, /Version one is current, no daemon runs$/)
      assert.deepStrictEqual([world.current, world.launches], ["one", []])
      const record = yield* UpdateRecord.read(folder)
      assert.deepStrictEqual([record.phase, record.rejected], ["rollingBack", []], "it is tried again")
      assert.strictEqual(Option.getOrThrow(yield* provide(Updater.recover(options))).status, "rolledBack")
      assert.deepStrictEqual(world.launches, ["one"])
      assert.deepStrictEqual((yield* UpdateRecord.read(folder)).rejected, [])
    }))

  it.effect("K17: one that is stopped before the old daemon is ended leaves it as it is", () =>
    Effect.gen(function*() {
      const { options, provide, world } = yield* started
      const restarting = yield* Deferred.make<void>()
      const go = yield* Deferred.make<void>()
      const fiber = yield* Effect.forkChild(provide(Updater.update({
        ...options,
        onPhase: (phase) =>
          phase === "restarting"
            ? Effect.andThen(Deferred.succeed(restarting, undefined), Deferred.await(go))
            : Effect.void
      })))
      yield* Deferred.await(restarting)
      const interrupting = yield* Effect.forkChild(Fiber.interrupt(fiber), { startImmediately: true })
      yield* settle
      yield* Deferred.succeed(go, undefined)
      yield* Fiber.join(interrupting)
      assert.deepStrictEqual([world.current, world.launches], ["one", []])
      assert.deepStrictEqual(world.calls, ["pause", "switch two", "switch one", "resume"], "the old one runs on")
    }))

  it.effect("K17: one that is stopped while the old daemon ends starts nothing, the old one neither", () =>
    Effect.gen(function*() {
      const { options, provide, world } = yield* started
      const ending = yield* Deferred.make<void>()
      const go = yield* Deferred.make<void>()
      const requestStop = Deferred.succeed(ending, undefined).pipe(
        Effect.andThen(Deferred.await(go)),
        // The signal follows.
        Effect.as(false)
      )
      const fiber = yield* Effect.forkChild(
        provide(Updater.update({ ...options, daemon: { ...options.daemon, requestStop } }))
      )
      yield* Deferred.await(ending)
      const interrupting = yield* Effect.forkChild(Fiber.interrupt(fiber), { startImmediately: true })
      yield* settle
      yield* Deferred.succeed(go, undefined)
      yield* Fiber.join(interrupting)
      assert.deepStrictEqual([world.current, world.launches], ["one", []])
      assert.deepStrictEqual(world.calls, ["pause", "switch two", "SIGTERM 101", "switch one", "resume"])
    }))

  it.effect("C29: what is current is looked at again right before the start; nothing else is started as the new version", () =>
    Effect.gen(function*() {
      const { folder, options, provide, world } = yield* started
      const requestStop = Effect.sync(() => {
        // By hand, while the old one ends.
        if (world.current === "two") world.current = "three"
        return false
      })
      const outcome = yield* provide(Updater.update({ ...options, daemon: { ...options.daemon, requestStop } }))
      assert.strictEqual(outcome.status, "rolledBack")
      assert.match(outcome.detail, /version three became current meanwhile/)
      assert.deepStrictEqual([outcome.current, world.current, world.launches], ["three", "three", ["three"]])
      assert.deepStrictEqual((yield* UpdateRecord.read(folder)).rejected, [], "not the fault of the version")
    }))

  it.effect("when the way back fails, too, it is told in which state it is, and tried again", () =>
    Effect.gen(function*() {
      const { folder, options, provide, world } = yield* started
      world.broken.add("one").add("two")
      const error = yield* Effect.flip(provide(Updater.update(options)))
      assert.strictEqual(error._tag, "RollbackFailed")
      assert.match(
        error.message,
        /^the update to two failed: .*two is broken.*\nThe way back to one failed, too: .*one is broken.*\nVersion one is current, no daemon runs$/
      )
      const failed = yield* UpdateRecord.read(folder)
      assert.deepStrictEqual([failed.phase, failed.rejected], ["rollingBack", []], "the fault may be elsewhere")
      world.broken.delete("one")
      const recovered = yield* provide(Updater.recover(options))
      assert.strictEqual(Option.getOrThrow(recovered).status, "rolledBack")
      assert.deepStrictEqual(world.launches, ["two", "one", "one"])
      const again = yield* provide(Updater.update(options))
      assert.match(again.detail, /^version two did not hold before/)
    }))

  it.effect("the way back is not tried for ever", () =>
    Effect.gen(function*() {
      const { folder, options, provide, world } = yield* started
      world.broken.add("one").add("two")
      let failures = 0
      while ((yield* UpdateRecord.read(folder)).phase !== "done" || failures === 0) {
        assert.isBelow(failures++, 10)
        assert.strictEqual((yield* Effect.flip(provide(Updater.update(options))))._tag, "RollbackFailed")
      }
      assert.strictEqual(failures, 4)
    }))

  /** An updater that dies as version `two` is validated, after which nothing runs; what is left of it is `left`. */
  const dead = (left: Partial<UpdateRecord.UpdateRecord> = {}) =>
    Effect.gen(function*() {
      const all = yield* make
      all.world.published = "two"
      all.world.current = "two"
      yield* UpdateRecord.write(all.folder, 9, {
        ...UpdateRecord.empty,
        phase: "validating",
        from: "one",
        to: "two",
        running: true,
        ...left
      })
      return all
    })

  it.effect("K17: what was stopped before it was found to hold is taken back, nothing is started, and it is tried again", () =>
    Effect.gen(function*() {
      const { daemon, folder, options, provide, world } = yield* dead({ stopped: true })
      assert.strictEqual(Option.getOrThrow(yield* provide(Updater.recover(options))).status, "rolledBack")
      assert.deepStrictEqual([world.current, world.launches], ["one", []])
      const record = yield* UpdateRecord.read(folder)
      assert.deepStrictEqual([record.phase, record.rejected], ["done", []])
      yield* provide(Daemon.start(daemon))
      assert.strictEqual((yield* provide(Updater.update(options))).status, "updated")
    }))

  it.effect("what was stopped, and was started by somebody since, is looked at", () =>
    Effect.gen(function*() {
      const { daemon, folder, options, provide, world } = yield* dead({ stopped: true })
      yield* provide(Daemon.start(daemon))
      const validate = () => Effect.fail({ message: "it is not well" })
      const error = yield* Effect.flip(provide(Updater.recover({ ...options, validate, validateWithin: 0 })))
      assert.strictEqual(error._tag, "RollbackFailed")
      assert.deepStrictEqual(world.launches, ["two", "two", "one"])
      assert.strictEqual((yield* UpdateRecord.read(folder)).phase, "rollingBack")
    }))

  it.effect("the way back has tries of its own", () =>
    Effect.gen(function*() {
      const { folder, options, provide, world } = yield* dead({ recoveries: 3 })
      world.broken.add("one")
      assert.strictEqual((yield* Effect.flip(provide(Updater.recover(options))))._tag, "RollbackFailed")
      const record = yield* UpdateRecord.read(folder)
      assert.deepStrictEqual([record.phase, record.recoveries], ["rollingBack", 1])
    }))

  it.effect("what a dead updater has left is looked at in the turn, not before it", () =>
    Effect.gen(function*() {
      const { daemon, folder, options, provide, world } = yield* dead()
      const begun = yield* Deferred.make<void>()
      const go = yield* Deferred.make<void>()
      const other = yield* Effect.forkChild(provide(Daemon.exclusively(daemon, "other", () =>
        Effect.gen(function*() {
          yield* Deferred.succeed(begun, undefined)
          yield* Deferred.await(go)
          world.current = "three"
        }))))
      yield* Deferred.await(begun)
      const recovering = yield* Effect.forkChild(provide(Updater.recover({ ...options, lockWithin: "1 hour" })))
      yield* settle
      yield* Deferred.succeed(go, undefined)
      yield* Fiber.join(other)
      for (let second = 0; second < 3; second++) {
        yield* TestClock.adjust("1 second")
        yield* settle
      }
      assert.isTrue(Option.isNone(yield* Fiber.join(recovering)))
      assert.deepStrictEqual([world.current, world.launches], ["three", []])
      assert.strictEqual((yield* UpdateRecord.read(folder)).phase, "done")
    }))

  it.effect("a machine that has no room for a process is not the version's fault", () =>
    Effect.gen(function*() {
      const { folder, options, provide, world } = yield* started
      const launch: Daemon.Daemon["launch"] = (variables) =>
        world.current === "two"
          ? Effect.fail(new LaunchError({ command: "app", reason: "ResourceExhausted", detail: "EAGAIN" }))
          : options.daemon.launch(variables)
      const outcome = yield* provide(Updater.update({ ...options, daemon: { ...options.daemon, launch } }))
      assert.deepStrictEqual([outcome.status, world.current, world.launches], ["rolledBack", "one", ["one"]])
      assert.deepStrictEqual((yield* UpdateRecord.read(folder)).rejected, [])
    }))

  it.effect("it is gone back to what has run, not to what was current", () =>
    Effect.gen(function*() {
      const { options, provide, world } = yield* started
      world.published = "three"
      world.current = "two"
      world.broken.add("three")
      const outcome = yield* provide(Updater.update(options))
      assert.deepStrictEqual([outcome.status, world.current, world.launches], ["rolledBack", "one", ["three", "one"]])
    }))

  it.effect("a daemon of another program is not restarted where there is nothing to go back to", () =>
    Effect.gen(function*() {
      const { options, provide, world } = yield* started
      world.current = "two"
      const install = { ...options.install, versionOf: () => Option.none<string>() }
      world.version = "2.0.0"
      const outcome = yield* provide(Updater.update({ ...options, install }))
      assert.strictEqual(outcome.status, "noUpdate")
      assert.match(outcome.detail, /treeline daemon bootstrap/)
      assert.deepStrictEqual(world.launches, [])
    }))

  it.effect("K17: a pause that could not be ended is ended by the next pass, and no other one is", () =>
    Effect.gen(function*() {
      const { folder, options, provide, world } = yield* started
      const failing = { ...options.supervision!, resume: Effect.fail({ message: "no answer" }) }
      assert.strictEqual((yield* provide(Updater.update({ ...options, supervision: failing }))).status, "updated")
      assert.isTrue((yield* UpdateRecord.read(folder)).paused)
      world.calls.length = 0
      assert.strictEqual((yield* provide(Updater.update(options))).status, "noUpdate")
      assert.deepStrictEqual(world.calls, ["resume"])
      assert.isFalse((yield* UpdateRecord.read(folder)).paused)
      yield* provide(Updater.update(options))
      assert.deepStrictEqual(world.calls, ["resume"])
    }))

  it.effect("K17: a pause of somebody else is not ended", () =>
    Effect.gen(function*() {
      const { options, provide, world } = yield* started
      const supervision = { ...options.supervision!, isPaused: Effect.succeed(true) }
      assert.strictEqual((yield* provide(Updater.update({ ...options, supervision }))).status, "updated")
      assert.deepStrictEqual(world.calls, ["switch two", "SIGTERM 101"])
    }))

  it.effect("where a new daemon would not live on the old one is left", () =>
    Effect.gen(function*() {
      const { options, provide, world } = yield* started
      const preflight = Effect.fail({ message: "it would end with its job" })
      const outcome = yield* provide(Updater.update({ ...options, preflight }))
      assert.deepStrictEqual([outcome.status, outcome.detail], ["rolledBack", "it would end with its job"])
      assert.deepStrictEqual([world.calls, world.current], [[], "one"])
    }))

  it.effect("the versions of what runs, and the one that was last found to hold, are kept", () =>
    Effect.gen(function*() {
      const { options, platform, provide, table, folder } = yield* started
      let kept: ReadonlyArray<string> = []
      const install: ManagedInstall.ManagedInstall = {
        ...options.install,
        prune: (keep) =>
          Effect.sync(() => {
            kept = keep
            return []
          })
      }
      const info = Schema.Struct({ install: Schema.String })
      const place = { folder, platform, name: "updater", info }
      const shim = { service: "web", version: "1", program: "/install/kept/app", listens: true, launched: null }
      const outcome = yield* Effect.scoped(Effect.gen(function*() {
        yield* Claim.take(place, table.start(70), { install: "updater's" })
        yield* Claim.take(Kept.claimOf({ folder, platform }, "web"), table.start(72), shim)
        const held = yield* UpdateRecord.read(folder)
        const validated = { id: "held", daemon: table.start(71) }
        yield* UpdateRecord.write(folder, 9, { ...held, validated })
        return yield* provide(
          Updater.update({ ...options, install, enabled: Effect.succeed(true), fetch: () => failing })
        )
      })).pipe(Effect.flip)
      assert.strictEqual(outcome._tag, "UpdateFetchFailed")
      assert.includeMembers([...kept], ["updater's", "held", "one", "kept"])
    }))

  it.effect("C33: a record of updates that can't be read stops updates, and nothing else", () =>
    Effect.gen(function*() {
      const { daemon, files, options, provide, world } = yield* started
      files.entries.set("update.json", "rubbish")
      assert.strictEqual((yield* Effect.flip(provide(Updater.update(options))))._tag, "UpdateRecordInvalid")
      assert.strictEqual(world.fetches, 0)
      const status = yield* provide(Updater.status(daemon))
      assert.match(status.detail, /Remove it/)
      assert.strictEqual((yield* provide(Updater.stop(daemon))).status, "notRunning")
    }))

  it.effect("one that is given up while it fetches leaves a record that says so", () =>
    Effect.gen(function*() {
      const { folder, options, provide, world } = yield* started
      const fiber = yield* Effect.forkChild(provide(Updater.update({
        ...options,
        fetch: () => Effect.andThen(Effect.sync(() => void world.fetches++), Effect.never)
      })))
      yield* eventually("it fetches", () => world.fetches === 1)
      const other = yield* provide(Updater.update(options))
      assert.deepStrictEqual([other.status, other.detail], ["busy", "process 10 updates already"])
      yield* Fiber.interrupt(fiber)
      const record = yield* UpdateRecord.read(folder)
      assert.deepStrictEqual([record.phase, record.lastError], ["done", "the update was stopped"])
    }))
})

describe("a hand-over to a new version", () => {
  /** An updater of `one`, which after an update to `two` starts a successor that does as `successor` says. */
  const handing = (successor: "goes on" | "is never ready" | "never takes the claim") =>
    Effect.gen(function*() {
      const { daemon, files, options, provide, table, world } = yield* make
      yield* provide(Daemon.start(daemon))
      world.published = "two"
      const next = table.start(500)
      const run: Updater.RunOptions = { ...options, version: "1.0.0", jitter: 0, first: 0 }
      const launch: NonNullable<Updater.Replacing["launch"]> = ({ program, variables }) =>
        Effect.gen(function*() {
          assert.strictEqual(program.path, "/install/two/app")
          if (successor !== "never takes the claim") {
            yield* Effect.forkDetach(Effect.exit(provide(Updater.run({
              ...run,
              daemon: { ...daemon, self: next },
              first: "1 hour",
              predecessor: variables[Updater.predecessorVariable],
              prepare: successor === "is never ready" ? Effect.never : undefined
            }))))
          }
          return {
            pid: next.pid,
            ended: Effect.never,
            errors: Effect.succeed({ bytes: new Uint8Array(), complete: true })
          }
        })
      const fiber = yield* Effect.forkChild(
        provide(Updater.run({ ...run, replacing: { own: "one", launch } })),
        { startImmediately: true }
      )
      const entries = () => files.names.filter((name) => name.startsWith("updater/") && name.endsWith(".json"))
      for (let second = 0; second < 9; second++) {
        yield* TestClock.adjust("1 second")
        yield* settle
      }
      const during = entries().length
      for (let second = 0; second < 5; second++) {
        yield* TestClock.adjust("1 second")
        yield* settle
      }
      const { pid, status } = yield* provide(Updater.status(daemon))
      assert.strictEqual(status, "running")
      return { during, entries: entries(), pid, fiber, calls: world.calls, current: world.current }
    })

  it.effect("C28: a successor that goes on has the record, and the old one ends", () =>
    Effect.gen(function*() {
      const { current, during, entries, fiber, pid } = yield* handing("goes on")
      assert.deepStrictEqual([pid, current, during, entries.length], [500, "two", 1, 1])
      assert.deepStrictEqual(yield* Fiber.join(fiber), { _tag: "HandedOver", pid: 500 })
    }))

  for (const successor of ["never takes the claim", "is never ready"] as const) {
    it.effect(`C28: one that ${successor} is ended after 10 s, and the old one goes on with its record`, () =>
      Effect.gen(function*() {
        const { calls, current, during, entries, fiber, pid } = yield* handing(successor)
        assert.deepStrictEqual([pid, current, entries.length], [10, "two", 1])
        assert.strictEqual(during, successor === "is never ready" ? 2 : 1)
        assert.match(entries[0]!, /^updater\/10-/)
        assert.strictEqual(calls.at(-1), "SIGTERM 500")
        assert.isUndefined(fiber.pollUnsafe())
        yield* Fiber.interrupt(fiber)
      }))
  }

  it.effect("a successor whose predecessor has been ended does not go on", () =>
    Effect.gen(function*() {
      const { daemon, options, provide, table } = yield* make
      const gone = table.start(600)
      table.end(gone)
      const predecessor = JSON.stringify({ holder: gone, token: "token" })
      const error = yield* Effect.flip(provide(Updater.run({ ...options, daemon, version: "1.0.0", predecessor })))
      assert.strictEqual(error._tag, "NotReplaced")
      assert.strictEqual((yield* provide(Updater.status(daemon))).status, "notRunning")
    }))

  it.effect("one that has lost its claim makes no further pass", () =>
    Effect.gen(function*() {
      const { files, options, provide, world } = yield* make
      const fiber = yield* Effect.forkChild(
        Effect.flip(provide(Updater.run({ ...options, version: "1.0.0", jitter: 0 })))
      )
      yield* settle
      for (const name of files.names.filter((name) => name.startsWith("updater/"))) files.entries.delete(name)
      for (let minute = 0; minute < 6; minute++) {
        yield* TestClock.adjust("1 minute")
        yield* settle
      }
      assert.strictEqual((yield* Fiber.join(fiber))._tag, "ClaimLost")
      assert.strictEqual(world.fetches, 0)
    }))

  it.effect("a process that was not meant is refused, whatever it says whom it replaces", () =>
    Effect.gen(function*() {
      const { daemon, options, provide, table } = yield* make
      const run: Updater.RunOptions = { ...options, version: "1.0.0" }
      const fiber = yield* Effect.forkChild(provide(Updater.run(run)))
      yield* settle
      for (const predecessor of ["rubbish", JSON.stringify({ holder: daemon.self, token: "guessed" })]) {
        const other = { ...daemon, self: table.start(600) }
        const error = yield* Effect.flip(provide(Updater.run({ ...run, daemon: other, predecessor })))
        assert.deepStrictEqual([error._tag, error._tag === "AlreadyRunning" && error.pid], ["AlreadyRunning", 10])
      }
      yield* Fiber.interrupt(fiber)
    }))
})
