/** Claims, the operation lock and the pid record: what is decided, every cut, and every order of two or more processes. */
import { assert, describe, it } from "@effect/vitest"
import { Claim, OperationLock, PidRecord } from "@treeline/core/daemon"
import { isPid, judge, type Look, type ProcessIdentity } from "@treeline/core/ProcessIdentity"
import { Effect, Exit, Fiber, Option, Result, Schema, Scope } from "effect"
import { TestClock } from "effect/testing"
import * as fc from "fast-check"
import { boot, MemoryFolder, Table } from "../support/MemoryFolder.ts"

const Info = Schema.Struct({ note: Schema.String })

const facts: PidRecord.Facts = { version: "1.0.0", program: "/bin/treeline", control: null, config: null, grace: 5000 }

const untilIdle = async (busy: () => boolean): Promise<void> => {
  for (let turns = 0; busy(); turns++) {
    if (turns > 1000) throw new Error("a process neither ended nor came to its next operation")
    await new Promise((resolve) => setImmediate(resolve))
  }
}

/** A process that does what it is told, one operation at a time. */
class Actor {
  readonly identity: ProcessIdentity
  private go: (() => void) | undefined = undefined
  private done = false
  alive = true
  /** It has been told that it holds the claim, and has not begun to give it back. */
  holds = false
  result: Exit.Exit<unknown, unknown> | undefined = undefined
  private readonly table: Table

  constructor(table: Table, files: MemoryFolder, pid: number, told: boolean) {
    this.table = table
    this.identity = table.start(pid)
    const folder = files.asSeen(() => this.turn())
    const place = { folder, platform: table.platform, name: "name", info: Info }
    const program = Effect.gen({ self: this }, function*() {
      const scope = yield* Scope.make()
      const outcome = yield* Scope.provide(Claim.take(place, this.identity, { note: "first" }), scope)
      if (Result.isSuccess(outcome)) {
        this.holds = true
        yield* Effect.promise(() => this.turn())
        if (told) yield* outcome.success.tell({ note: "second" })
        yield* Effect.promise(() => this.turn())
        this.holds = false
      }
      yield* Scope.close(scope, Exit.void)
      return outcome
    })
    Effect.runFork(program).addObserver((exit) => {
      this.result = exit
      this.done = true
      if (this.alive) table.end(this.identity)
    })
  }

  private turn(): Promise<void> {
    return new Promise((resolve) => (this.go = resolve))
  }

  get waits(): boolean {
    return this.alive && this.go !== undefined
  }

  get busy(): boolean {
    return this.alive && !this.done && this.go === undefined
  }

  step(): void {
    const { go } = this
    this.go = undefined
    go?.()
  }

  /** Its next operation never comes. */
  kill(): void {
    this.alive = false
    this.holds = false
    this.table.end(this.identity)
  }
}

/** Ends whoever is left, and shows that the next one gets the claim and leaves nothing. */
const nextSucceeds = async (files: MemoryFolder, table: Table, pid: number): Promise<void> => {
  const next = new Actor(table, files, pid, true)
  while (next.result === undefined) {
    await untilIdle(() => next.busy)
    next.step()
    await new Promise((resolve) => setImmediate(resolve))
  }
  assert.strictEqual(next.result._tag, "Success", JSON.stringify(next.result))
  assert.isTrue(Result.isResult((next.result as { value: Result.Result<unknown, unknown> }).value))
  assert.isTrue(Result.isSuccess((next.result as { value: Result.Result<unknown, unknown> }).value), "it got it")
}

describe("identity", () => {
  const remembered = { pid: 7, startTime: "100", boot }
  const look = (change: Partial<Look>): Look => ({
    found: { identity: remembered, alive: true },
    exists: true,
    boot,
    tolerance: 0,
    ...change
  })

  it("C18, C19, C24: the same process lives, another one with its pid is not it, a zombie is dead", () => {
    assert.strictEqual(judge(remembered, look({})), "Alive")
    assert.strictEqual(
      judge(remembered, look({ found: { identity: { ...remembered, startTime: "101" }, alive: true } })),
      "Gone"
    )
    assert.strictEqual(judge({ ...remembered, boot: "an earlier boot" }, look({})), "Gone")
    assert.strictEqual(judge(remembered, look({ found: { identity: remembered, alive: false } })), "Gone", "a zombie")
    assert.strictEqual(judge(remembered, look({ found: undefined, exists: false })), "Gone")
    assert.strictEqual(judge(remembered, look({ found: undefined })), "Unsure", "EPERM means that it exists")
    assert.strictEqual(judge({ ...remembered, startTime: "" }, look({})), "Unsure")
    assert.strictEqual(judge({ ...remembered, boot: "" }, look({})), "Unsure")
  })

  it("C21: where start times are guessed, a moment more or less is the same process", () => {
    const ps = (startTime: string, tolerance: number) =>
      judge(
        { ...remembered, boot: "" },
        look({ boot: "", tolerance, found: { identity: { pid: 7, startTime, boot: "" }, alive: true } })
      )
    assert.strictEqual(ps("102", 2), "Alive")
    assert.strictEqual(ps("103", 2), "Gone")
    assert.strictEqual(ps("101", 0), "Gone")
  })

  it("peer 23: 0, 1, negative, fractional and too large numbers are nobody's pid", () => {
    assert.deepStrictEqual([-1, 0, 1, 1.5, Number.NaN, 2 ** 31, 2, 2 ** 22].map(isPid), [
      false,
      false,
      false,
      false,
      false,
      false,
      true,
      true
    ])
  })
})

describe("a claim", () => {
  it("peer 114, C5: at each cut of taking, telling and giving back, the next one succeeds and nothing is left", async () => {
    let cuts = 0
    for (let cut = 0;; cut++) {
      const files = new MemoryFolder()
      const table = new Table()
      const first = new Actor(table, files, 10, true)
      let steps = 0
      for (; steps < cut; steps++) {
        await untilIdle(() => first.busy)
        if (!first.waits) break
        first.step()
      }
      await untilIdle(() => first.busy)
      if (!first.waits) break
      first.kill()
      cuts++
      await nextSucceeds(files, table, 11)
      assert.deepStrictEqual(files.names, [], `after a death before operation ${cut}`)
    }
    assert.isAbove(cuts, 15, "every operation was cut")
  })

  it("C4, C18: a dead holder's pid is another process's now", async () => {
    const files = new MemoryFolder()
    const table = new Table()
    const first = new Actor(table, files, 10, false)
    while (!first.holds) {
      await untilIdle(() => first.busy)
      first.step()
      await untilIdle(() => first.busy)
    }
    first.kill()
    table.start(10)
    await nextSucceeds(files, table, 11)
    assert.deepStrictEqual(files.names, [])
  })

  it("peer 105: in any order of several processes, deaths included, at most one holds it", () =>
    fc.assert(
      fc.asyncProperty(
        fc.integer({ min: 2, max: 4 }),
        fc.array(fc.tuple(fc.nat(50), fc.nat(20)), { minLength: 30, maxLength: 160 }),
        async (count, orders) => {
          const files = new MemoryFolder()
          const table = new Table()
          let pid = 100
          const actors = Array.from({ length: count }, () => new Actor(table, files, pid++, true))
          for (const [who, what] of orders) {
            await untilIdle(() => actors.some(({ busy }) => busy))
            const waiting = actors.filter(({ waits }) => waits)
            if (waiting.length === 0) break
            const actor = waiting[who % waiting.length]!
            if (what === 0) {
              actor.kill()
              // Somebody else comes, now and then with the same pid.
              actors.push(new Actor(table, files, who % 2 === 0 ? actor.identity.pid : pid++, false))
            } else actor.step()
            await untilIdle(() => actors.some(({ busy }) => busy))
            assert.isAtMost(actors.filter(({ alive, holds }) => alive && holds).length, 1, "two hold it")
          }
          for (const actor of actors) {
            if (actor.result !== undefined) {
              assert.strictEqual(actor.result._tag, "Success", JSON.stringify(actor.result))
            } else actor.kill()
          }
          await nextSucceeds(files, table, pid)
        }
      ),
      { numRuns: Number(process.env["TREELINE_CLAIM_RUNS"] ?? 150) }
    ), 60_000)

  it.effect("C19, C33: what can't be read or decided is told and kept", () =>
    Effect.gen(function*() {
      const files = new MemoryFolder()
      const table = new Table()
      const self = table.start(20)
      const place = { folder: files.asSeen(), platform: table.platform, name: "name", info: Info }
      const entry = "name/30-ab.json"
      const holding = (holder: ProcessIdentity) => JSON.stringify({ holder, since: 0, info: { note: "" } })
      const refused = (text: string, reason: string) =>
        Effect.gen(function*() {
          files.entries.clear()
          files.entries.set("name", undefined).set(entry, text)
          const error = yield* Effect.flip(Effect.scoped(Claim.take(place, self, { note: "" })))
          assert.strictEqual(error._tag, "ClaimUndecided")
          if (error._tag === "ClaimUndecided") assert.strictEqual(error.reason, reason)
          assert.deepStrictEqual(files.entries.get(entry), text, "it was kept")
        })
      yield* refused("rubbish", "Unreadable")
      yield* refused(holding({ pid: 1, startTime: "1", boot }), "Unreadable")
      yield* refused(holding({ pid: -5, startTime: "1", boot }), "Unreadable")
      table.start(30)
      yield* refused(holding({ pid: 30, startTime: "", boot }), "Unsure")
      yield* refused("", "Unsure")
      table.hidden.add(30)
      yield* refused(holding({ pid: 30, startTime: "1", boot }), "Unsure")
    }))

  it.effect("C1, C2, C4: an empty file of a process that has gone is removed", () =>
    Effect.gen(function*() {
      const files = new MemoryFolder()
      const table = new Table()
      const self = table.start(20)
      const place = { folder: files.asSeen(), platform: table.platform, name: "name", info: Info }
      files.entries.set("name", undefined).set("name/30-ab.json", "")
      assert.strictEqual((yield* Claim.look(place))._tag, "Stale")
      const outcome = yield* Effect.scoped(Claim.take(place, self, { note: "" }))
      assert.isTrue(Result.isSuccess(outcome))
      assert.deepStrictEqual(files.names, [])
    }))

  it.effect("who has lost it by hand is told, and takes nobody else's away", () =>
    Effect.gen(function*() {
      const files = new MemoryFolder()
      const table = new Table()
      const place = { folder: files.asSeen(), platform: table.platform, name: "name", info: Info }
      const claim = Result.getOrThrow(yield* Claim.take(place, table.start(20), { note: "" }))
      files.entries.clear()
      Result.getOrThrow(yield* Claim.take(place, table.start(21), { note: "other" }))
      assert.strictEqual((yield* Effect.flip(claim.tell({ note: "" })))._tag, "ClaimLost")
      const state = yield* Claim.look(place)
      assert.deepStrictEqual(state._tag === "Held" && state.holding.info, { note: "other" })
    }).pipe(Effect.scoped))
})

describe("the operation lock", () => {
  const setup = () => {
    const files = new MemoryFolder()
    const table = new Table()
    const take = (self: ProcessIdentity, operation: string, within?: number) =>
      OperationLock.take({ folder: files.asSeen(), platform: table.platform, self, operation, within })
    return { files, table, take }
  }

  it.effect("a second one waits for its turn, and is told who is at work when it waits too long", () =>
    Effect.gen(function*() {
      const { files, table, take } = setup()
      const first = yield* Scope.make()
      yield* Scope.provide(take(table.start(10), "start"), first)
      const second = yield* Effect.forkChild(Effect.flip(Effect.scoped(take(table.start(11), "stop", 1000))))
      yield* TestClock.adjust(999)
      assert.isUndefined(second.pollUnsafe())
      yield* TestClock.adjust(50)
      const error = yield* Fiber.join(second)
      assert.strictEqual(error._tag, "OperationBusy")
      if (error._tag === "OperationBusy") {
        assert.deepStrictEqual([error.holder.pid, error.holder.operation, error.within], [10, "start", 1000])
        assert.include(error.message, "the start of process 10")
      }
      const third = yield* Effect.forkChild(Effect.scoped(take(table.start(12), "restart", 1000)))
      yield* TestClock.adjust(500)
      assert.isUndefined(third.pollUnsafe())
      yield* Scope.close(first, Exit.void)
      yield* TestClock.adjust(50)
      yield* Fiber.join(third)
      assert.deepStrictEqual(files.names, [])
    }))

  it.effect("a holder that dies lets go", () =>
    Effect.gen(function*() {
      const { table, take } = setup()
      const dead = table.start(10)
      yield* Scope.provide(take(dead, "start"), yield* Scope.make())
      table.end(dead)
      yield* Effect.scoped(take(table.start(11), "stop", 0))
    }))
})

describe("the pid record", () => {
  it.effect("is Missing, Starting, Running, Stale in turn, and told to whoever comes second", () =>
    Effect.gen(function*() {
      const files = new MemoryFolder()
      const table = new Table()
      const place = { folder: files.asSeen(), platform: table.platform }
      const stateTag = Effect.map(PidRecord.read(place), ({ _tag }) => _tag)
      assert.strictEqual(yield* stateTag, "Missing")
      assert.deepStrictEqual(files.names, [], "a look leaves nothing")
      const self = table.start(20)
      const scope = yield* Scope.make()
      const held = yield* Scope.provide(PidRecord.take(place, self, facts), scope)
      assert.strictEqual(yield* stateTag, "Starting")
      const other = yield* Effect.flip(Effect.scoped(PidRecord.take(place, table.start(21), facts)))
      assert.deepStrictEqual([other._tag, other._tag === "AlreadyRunning" && other.pid], ["AlreadyRunning", 20])
      yield* TestClock.adjust(70)
      yield* held.ready("/run/control.sock")
      const state = yield* PidRecord.read(place)
      assert.deepStrictEqual(state, {
        _tag: "Running",
        record: { ...facts, identity: self, startedAt: 0, control: "/run/control.sock", readyAt: 70 }
      })
      table.end(self)
      assert.strictEqual(yield* stateTag, "Stale")
      const next = yield* Scope.make()
      yield* Scope.provide(PidRecord.take(place, table.start(22), facts), next)
      yield* Scope.close(scope, Exit.void)
      assert.strictEqual(yield* stateTag, "Starting", "the old one takes nothing of its successor away")
      yield* Scope.close(next, Exit.void)
      assert.strictEqual(yield* stateTag, "Missing")
      assert.deepStrictEqual(files.names, [], "C34: nothing is left of it")
    }))

  it.effect("peer 114: a daemon whose starter has died before it had the record does not begin", () =>
    Effect.gen(function*() {
      const files = new MemoryFolder()
      const table = new Table()
      const place = { folder: files.asSeen(), platform: table.platform }
      const starter = table.start(20)
      const said = PidRecord.encodeStarter(starter)
      yield* Effect.scoped(PidRecord.take(place, table.start(21), facts, said))
      table.end(starter)
      // Its pid is somebody else's by now.
      table.start(20)
      const error = yield* Effect.flip(Effect.scoped(PidRecord.take(place, table.start(22), facts, said)))
      assert.deepStrictEqual([error._tag, error._tag === "StartAbandoned" && error.starter], ["StartAbandoned", 20])
      assert.deepStrictEqual(files.names, [])
      yield* Effect.scoped(PidRecord.take(place, table.start(23), facts, "not what a starter says"))
    }))
})

describe("a claim that is taken over", () => {
  const Info = Schema.Struct({ token: Schema.String })
  const setup = Effect.gen(function*() {
    const table = new Table()
    const files = new MemoryFolder()
    const place: Claim.Place<typeof Info.Type> = {
      folder: files.asSeen(),
      platform: table.platform,
      name: "updater",
      info: Info
    }
    const first = table.start(10)
    const scope = yield* Scope.make()
    const taken = yield* Scope.provide(scope)(Claim.take(place, first, { token: "t" }))
    if (Result.isFailure(taken)) return yield* Effect.die("it was free")
    const holders = Effect.map(
      Claim.holders(place),
      (found) => found.map(({ holder }) => holder.pid).toSorted((a, b) => a - b)
    )
    return { table, files, place, first, scope, claim: taken.success, holders }
  })
  const accept = ({ token }: typeof Info.Type) => token === "t"

  it.effect("C28: both hold it until the predecessor gives its part back", () =>
    Effect.scoped(Effect.gen(function*() {
      const { first, holders, place, scope, table } = yield* setup
      const second = table.start(20)
      const claim = Option.getOrThrow(yield* Claim.takeOver(place, first, second, { token: "t" }, accept))
      assert.deepStrictEqual(yield* holders, [10, 20])
      yield* claim.tell({ token: "u" })
      yield* Scope.close(scope, Exit.void)
      assert.deepStrictEqual(yield* holders, [20])
    })))

  it.effect("C28: a successor that dies or gives up takes nothing from its predecessor", () =>
    Effect.gen(function*() {
      const { claim, files, first, holders, place, table } = yield* setup
      const before = files.names
      yield* Effect.scoped(Claim.takeOver(place, first, table.start(20), { token: "t" }, accept))
      assert.deepStrictEqual(files.names, before)
      const third = table.start(30)
      yield* Claim.takeOver(place, first, third, { token: "t" }, accept).pipe(Scope.provide(yield* Scope.make()))
      table.end(third)
      assert.deepStrictEqual(yield* holders, [10])
      yield* Claim.clean(place)
      assert.deepStrictEqual(files.names, before)
      yield* claim.tell({ token: "v" })
    }))

  it.effect("only from who holds it, and only by who was meant", () =>
    Effect.scoped(Effect.gen(function*() {
      const { files, first, place, table } = yield* setup
      const before = files.names
      const second = table.start(20)
      assert.isTrue(Option.isNone(yield* Claim.takeOver(place, second, table.start(30), { token: "t" }, accept)))
      assert.isTrue(Option.isNone(yield* Claim.takeOver(place, first, second, { token: "x" }, () => false)))
      table.end(first)
      assert.isTrue(Option.isNone(yield* Claim.takeOver(place, first, second, { token: "t" }, accept)))
      assert.deepStrictEqual(files.names, before)
    })))

  it.effect("C5: one whose predecessor dies at that moment gives it up, for somebody else may be at work on what is left", () =>
    Effect.scoped(Effect.gen(function*() {
      const { files, first, place, table } = yield* setup
      const before = files.names
      const dying: typeof place = {
        ...place,
        folder: {
          ...place.folder,
          replace: (from, to) => Effect.andThen(place.folder.replace(from, to), Effect.sync(() => table.end(first)))
        }
      }
      assert.isTrue(Option.isNone(yield* Claim.takeOver(dying, first, table.start(20), { token: "t" }, accept)))
      assert.deepStrictEqual(files.names, before)
    })))

  it.effect("what a process has kept is its own again when it has become another program", () =>
    Effect.gen(function*() {
      const { claim, files, first, holders, place, scope } = yield* setup
      yield* claim.setKept(true)
      yield* Scope.close(scope, Exit.void)
      assert.deepStrictEqual(yield* holders, [10])
      const next = yield* Scope.make()
      const again = yield* Scope.provide(next)(Claim.takeOver(place, first, first, { token: "u" }, accept))
      assert.isTrue(Option.isSome(again))
      assert.deepStrictEqual(yield* holders, [10])
      yield* Scope.close(next, Exit.void)
      assert.deepStrictEqual(files.names, [])
    }))
})
