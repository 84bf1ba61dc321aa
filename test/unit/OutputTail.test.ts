/** Every failure of a child carries the last lines that it wrote. */
import { assert, it } from "@effect/vitest"
import { Child, type Errors, Probe, Restart, Supervisor } from "@treeline/core"
import { Program } from "@treeline/core/testing"
import { Effect, Schema } from "effect"
import { ChildFailed, IntensityExceeded } from "../../packages/core/src/Errors.ts"
import { CurrentRedaction } from "../../packages/core/src/internal/Tail.ts"
import { advance, exits, onSystem, passing, process, record, supervise } from "../support/Actors.ts"

const temporary = Restart.temporary()

const crash = Program.make(Program.print("starting\n"), Program.write("panic: out of luck", 2), Program.exit(3))

const tail = "stderr:\npanic: out of luck\nstdout:\nstarting\n"

/** The error of a child that has failed for good. */
const failure = (child: Child.Child) =>
  Effect.map(passing(child.awaitEnd), (state): Errors.ChildFailed => {
    if (state._tag !== "Failed") throw new Error(state._tag)
    return state.error
  })

it.effect(
  "a crash: ChildFailed and the event of the end; both cross a socket",
  onSystem(function*() {
    const child = yield* Child.start(process("web", crash, { restart: temporary }))
    const events = yield* record(child)
    const error = yield* failure(child)
    assert.strictEqual(error.outputTail, tail)
    const [ended] = events.flatMap(({ change }) => change._tag === "Ended" ? [change] : [])
    assert.strictEqual(ended!.outputTail, tail)
    const codec = Schema.toCodecJson(ChildFailed)
    const encoded = yield* Schema.encodeEffect(codec)(error)
    assert.strictEqual((yield* Schema.decodeUnknownEffect(codec)(JSON.parse(JSON.stringify(encoded)))).outputTail, tail)
  })
)

it.effect(
  "a child that is not ready in time, and one that is unhealthy",
  onSystem(function*() {
    const mute = Program.make(Program.print("waiting for the database\n"), Program.endure)
    const slow = yield* Child.start(
      process("slow", mute, {
        restart: temporary,
        readiness: Probe.readiness(Probe.line("up"), { within: "1 second" })
      })
    )
    assert.strictEqual((yield* failure(slow)).outputTail, "stdout:\nwaiting for the database\n")
    const sick = yield* Child.start(process("sick", mute, {
      restart: temporary,
      liveness: Probe.liveness(Probe.effect("never", Effect.fail("sick")), { failureThreshold: 1 })
    }))
    const error = yield* failure(sick)
    assert.match(error.reason, /unhealthy/)
    assert.strictEqual(error.outputTail, "stdout:\nwaiting for the database\n")
  })
)

it.effect(
  "of much output the last whole lines, at most 4 KiB",
  onSystem(function*() {
    const lines = Array.from({ length: 1000 }, (_, n) => `line ${n}\n`).join("")
    const child = yield* Child.start(
      process("web", Program.make(Program.print(lines), Program.exit(1)), { restart: temporary })
    )
    const { outputTail } = yield* failure(child)
    assert.isAtMost(outputTail.length, 4096)
    assert.isAtLeast(outputTail.length, 3500)
    assert.isTrue(outputTail.endsWith("line 998\nline 999\n"))
    assert.match(outputTail, /^stdout:\nline \d+\n/)
  })
)

it.effect(
  "a supervisor that gives up, a dependency that failed: the links of the chain",
  onSystem(function*() {
    const { supervisor } = yield* supervise([process("web", crash)], { intensity: { max: 0, within: "1 second" } })
    const error = yield* passing(Effect.flip(supervisor.awaitEnd as Effect.Effect<unknown, IntensityExceeded>))
    assert.instanceOf(error, IntensityExceeded)
    assert.deepStrictEqual(error.causes, [
      { child: "web", incarnation: 1, reason: "exited with code 3", outputTail: tail }
    ])

    const inner = Supervisor.child("inner", [process("web", crash)], {
      intensity: { max: 0, within: "1 second" },
      restart: temporary
    })
    const outer = yield* Child.start(inner)
    const failed = yield* failure(outer)
    assert.strictEqual(failed.outputTail, "")
    assert.deepStrictEqual(failed.causes.map(({ child, outputTail }) => [child, outputTail]), [["web", tail]])

    const pair = yield* supervise([
      process("db", crash, { restart: temporary }),
      process("web", exits(0), { dependsOn: ["db"] })
    ])
    yield* advance(1000)
    const web = yield* failure(yield* Effect.orDie(pair.supervisor.child("web")))
    assert.deepStrictEqual(web.causes.map(({ child, outputTail }) => [child, outputTail]), [["db", tail]])
    assert.strictEqual(web.outputTail, "")
  })
)

it.effect(
  "a stop that was asked for has none",
  onSystem(function*() {
    const child = yield* Child.start(process("web", Program.make(Program.print("up\n"), Program.endure)))
    const events = yield* record(child)
    yield* advance(10)
    yield* passing(child.stop())
    assert.deepStrictEqual(events.flatMap(({ change }) => change._tag === "Ended" ? [change.outputTail] : []), [""])
  })
)

it.effect(
  "secrets are taken out before the tail is cut, so that none of them is cut into a remainder",
  onSystem(function*() {
    const secret = "s3cret-".repeat(20)
    const lines = Array.from({ length: 60 }, (_, n) => `${"x".repeat(n)} ${secret} end\n`).join("")
    const hide = (text: string) => text.replaceAll(secret, "<redacted>")
    const child = yield* Effect.provideService(
      Child.start(process("web", Program.make(Program.print(lines), Program.exit(1)), { restart: temporary })),
      CurrentRedaction,
      hide
    )
    const { outputTail } = yield* failure(child)
    assert.isTrue(hide(lines).endsWith(outputTail.slice("stdout:\n".length)))
    assert.isAbove(outputTail.length, 2000)
    assert.isAtMost(outputTail.length, 4096)
    assert.notInclude(outputTail, "s3cret")
  })
)
