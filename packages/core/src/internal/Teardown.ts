/**
 * Drives a `ShutdownPlan` against an engine's tree: one teardown per tree, shared by all who ask for it.
 */
import * as Cause from "effect/Cause"
import type * as Clock from "effect/Clock"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import type * as ChildProcess from "effect/process/ChildProcess"
import type { EngineTree, SignalReport } from "../Engine.ts"
import type { ProcessInfo } from "../ProcessIdentity.ts"
import * as ShutdownPlan from "../ShutdownPlan.ts"

/** Signals that no process can catch; every other one is followed by SIGCONT, so that a stopped process sees it. */
const uncatchable: ReadonlySet<ChildProcess.Signal> = new Set(["SIGKILL", "SIGSTOP", "SIGCONT"])

/** Signals that stop a process; a SIGCONT after one would undo it. */
const stopping: ReadonlySet<ChildProcess.Signal> = new Set(["SIGTSTP", "SIGTTIN", "SIGTTOU"])

/** A signal for ending: followed by SIGCONT where it can be caught (systemd.kill(5), s6-svc do the same). */
const signalToEnd = (
  tree: EngineTree,
  signal: ChildProcess.Signal,
  target: ShutdownPlan.Target | ProcessInfo
): Effect.Effect<SignalReport> =>
  uncatchable.has(signal) || stopping.has(signal)
    ? tree.signal(signal, target)
    : Effect.tap(tree.signal(signal, target), () => tree.signal("SIGCONT", target))

/** How often a tree that has been asked to end is looked at for processes that it has started since, in ms. */
const latecomerPause = 25
/** Where a look comes late or takes long the host has much to do, as when it closes 1,000 trees: this many times as long is added. */
const pausePerLateness = 5

/** What a teardown is doing, for whoever asks which child blocks a shutdown. */
export interface State {
  readonly step: string
  /** ms on the platform's clock. */
  readonly since: number
}

/** How the wait of a step ends: nothing lives, its time is over, or a shorter plan took over. */
type Outcome = "empty" | "elapsed" | "changed"

export class Teardown {
  private progress: ShutdownPlan.Progress | undefined = undefined
  private stepStartedAt = 0
  /** How the wait that is going on ends. */
  private outcome = Deferred.makeUnsafe<Outcome>()
  private readonly done = Deferred.makeUnsafe<ReadonlyArray<ProcessInfo>>()
  private readonly tree: EngineTree
  private readonly clock: Clock.Clock
  private readonly closeStdin: Effect.Effect<void>
  private readonly onStep: (step: string) => void

  constructor(
    tree: EngineTree,
    clock: Clock.Clock,
    closeStdin: Effect.Effect<void>,
    onStep: (step: string) => void
  ) {
    this.tree = tree
    this.clock = clock
    this.closeStdin = closeStdin
    this.onStep = onStep
  }

  private now(): number {
    return Number(this.clock.monotonicTimeNanosUnsafe() / 1000n) / 1000
  }

  /** The step that is going on; undefined when no teardown runs. */
  get state(): State | undefined {
    return this.progress === undefined || Deferred.isDoneUnsafe(this.done)
      ? undefined
      : { step: ShutdownPlan.describeStep(this.progress), since: this.stepStartedAt }
  }

  /**
   * Starts the teardown, or shortens the one that runs. Returns what still lives at its end; the teardown goes on when
   * the caller is interrupted.
   */
  run(plan: ShutdownPlan.Validated): Effect.Effect<ReadonlyArray<ProcessInfo>> {
    return Effect.suspend(() => {
      if (this.progress !== undefined) {
        const next = ShutdownPlan.shorten(this.progress, plan, this.now())
        if (next !== this.progress) {
          this.progress = next
          Deferred.doneUnsafe(this.outcome, Effect.succeed("changed"))
        }
        return Deferred.await(this.done)
      }
      this.progress = ShutdownPlan.begin(plan, this.now())
      return Effect.andThen(
        Effect.forkDetach(
          this.drive().pipe(
            // Whatever is wrong with the plan, the tree ends.
            Effect.catchCause((cause) =>
              Effect.andThen(
                Effect.logError("a shutdown plan broke off; the tree is killed", cause),
                this.tree.kill(plan.cap)
              )
            ),
            Effect.onExit((exit) => Effect.sync(() => Deferred.doneUnsafe(this.done, exit)))
          ),
          { startImmediately: true }
        ),
        Deferred.await(this.done)
      )
    })
  }

  /** Waits for the empty tree until `at`, or until a shorter plan takes over. */
  private waitUntil(at: number): Effect.Effect<Outcome> {
    return Effect.gen({ self: this }, function*() {
      const outcome = this.outcome = Deferred.makeUnsafe<Outcome>()
      const rest = at - this.now()
      if (rest <= 0) return "elapsed"
      // Instead of a race: a host may close 1,000 trees at once, and this is what each of them waits in.
      const end = (wait: Effect.Effect<void>, as: Outcome) =>
        Effect.forkDetach(Deferred.into(Effect.as(wait, as), outcome), { startImmediately: true })
      const empty = yield* end(this.tree.awaitEmpty, "empty")
      const elapsed = yield* end(this.clock.sleep(Duration.millis(rest)), "elapsed")
      const result = yield* Deferred.await(outcome)
      empty.interruptUnsafe()
      elapsed.interruptUnsafe()
      return result
    })
  }

  /**
   * Signals the group, then each member outside it, and whom the tree leaves behind from then on: a process that forks on
   * SIGTERM and ends, again and again. A newcomer whose parent lives is left alone, because it may be what the parent
   * runs to clean up. Who is there is looked up before the signal: what appears later has missed it, or was born in the
   * same instant and gets it twice. So does what becomes another program: between fork and exec a signal goes to a
   * handler that is about to vanish.
   */
  private signalTree(signal: ChildProcess.Signal): Effect.Effect<void> {
    const leader = this.tree.identity.pid
    const asked = new Set<string>()
    const identify = (member: ProcessInfo) => `${member.pid}.${member.startTime}.${member.command}`
    let due = this.now()
    let pause = latecomerPause
    const look = Effect.tap(this.tree.members, () => {
      pause = latecomerPause + pausePerLateness * Math.max(0, this.now() - due)
      due = this.now() + pause
      return Effect.void
    })
    const first = Effect.flatMap(look, (members) => {
      for (const member of members) asked.add(identify(member))
      const outside = members.filter((member) => member.group !== leader && member.pid !== leader)
      const group = signalToEnd(this.tree, signal, "group")
      return outside.length === 0 ? group : Effect.andThen(
        group,
        Effect.forEach(outside, (member) => signalToEnd(this.tree, signal, member), { discard: true })
      )
    })
    const latecomers = Effect.gen({ self: this }, function*() {
      while (true) {
        yield* this.clock.sleep(Duration.millis(pause))
        const members = yield* look
        const pids = new Set(members.map(({ pid }) => pid))
        for (const member of members) {
          if (asked.has(identify(member)) || pids.has(member.parent)) continue
          asked.add(identify(member))
          yield* signalToEnd(this.tree, signal, member)
        }
      }
    })
    // Not interruptible, so that a step that is shorter than a look still asks before the kill.
    return Effect.andThen(Effect.uninterruptible(first), latecomers)
  }

  private act(step: ShutdownPlan.Validated["steps"][number]): Effect.Effect<unknown> {
    const { action } = step
    switch (action._tag) {
      case "Signal":
        return action.target === "tree"
          ? this.signalTree(action.signal)
          : signalToEnd(this.tree, action.signal, action.target)
      case "Interrupt":
        return this.signalTree("SIGINT")
      case "CloseStdin":
        return this.closeStdin
      case "RequestClose":
        return this.tree.requestClose
      case "Run":
        return action.effect.pipe(
          Effect.catchCause((cause) =>
            Cause.hasInterruptsOnly(cause)
              ? Effect.void
              : Effect.logWarning(`shutdown step "${action.name}" failed, the plan goes on`, cause)
          ),
          Effect.interruptible
        )
    }
  }

  private drive(): Effect.Effect<ReadonlyArray<ProcessInfo>> {
    return Effect.gen({ self: this }, function*() {
      while (true) {
        const current = this.progress!
        const step = current.plan.steps[current.step]
        this.stepStartedAt = this.now()
        this.onStep(ShutdownPlan.describeStep(current))
        if (step === undefined) return yield* this.tree.kill(current.plan.cap)
        const endsAt = ShutdownPlan.stepEndsAt(current, this.stepStartedAt)
        // An action that takes time, such as an HTTP call, runs within its step and is interrupted at its end.
        const acting = yield* Effect.forkDetach(this.act(step), { startImmediately: true })
        const outcome = yield* this.waitUntil(endsAt)
        // Somebody's own effect may take no notice of that.
        if (step.action._tag === "Run") acting.interruptUnsafe()
        else yield* Fiber.interrupt(acting)
        if (outcome === "empty") return []
        // A shorter plan may have taken over at the same instant; it starts at its own first step.
        if (outcome === "elapsed" && this.progress === current) this.progress = ShutdownPlan.advance(current)
      }
    })
  }
}
