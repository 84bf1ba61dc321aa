/**
 * Launched trees of the programs in windowsProgram.cjs.
 */
import { assert } from "@effect/vitest"
import { Output, ProcessPlatform, type ProcessTree } from "@treeline/core"
import { Effect, Exit, Option, Scope, Stream } from "effect"
import type { ChildProcess } from "effect/process"
import { eventually } from "../../support/Eventually.ts"
import { childrenOf, identify, type Identity, isAlive, killIfAlive } from "./Processes.ts"

/** A tree whose processes have reported themselves, and how its scope is closed. */
export interface Running {
  readonly tree: ProcessTree.ProcessTree
  readonly pids: ReadonlyArray<number>
  readonly close: Effect.Effect<void>
}

/** The pids of the first line `pids P1 P2 ...`. */
export const pidsIn = <E>(stdout: Stream.Stream<Uint8Array, E>): Effect.Effect<ReadonlyArray<number>, E> =>
  Output.lines(stdout).pipe(
    Stream.filter((line) => line.startsWith("pids ")),
    Stream.runHead,
    Effect.map((line) => Option.getOrThrow(line).split(" ").slice(1).map(Number))
  )

/** Launches in a scope of its own and waits for the report; what is left is ended with the test. */
export const launch = (
  command: ChildProcess.StandardCommand,
  options?: ProcessPlatform.LaunchOptions
): Effect.Effect<Running, ProcessPlatform.LaunchFailure, ProcessPlatform.ProcessPlatform | Scope.Scope> =>
  Effect.gen(function*() {
    const platform = yield* ProcessPlatform.ProcessPlatform
    const scope = yield* Effect.acquireRelease(Scope.make(), (scope, exit) => Scope.close(scope, exit))
    const tree = yield* Scope.provide(platform.launch(command, options), scope)
    const pids = yield* Effect.orDie(pidsIn(tree.stdout.stream))
    yield* Effect.acquireRelease(
      Effect.sync(() => living(pids)),
      (identities) => Effect.sync(() => identities.forEach(killIfAlive))
    )
    return { tree, pids, close: Scope.close(scope, Exit.void) }
  })

/** Those that live now. */
export const living = (pids: ReadonlyArray<number>): ReadonlyArray<Identity> =>
  pids.map(identify).filter((identity) => identity !== undefined)

/** Nothing of it lives at this instant. */
export const assertGone = (identities: ReadonlyArray<Identity>): void =>
  assert.deepStrictEqual(identities.filter(isAlive), [], "has ended")

/**
 * The members of the role `family` (or `familyLeft`): its leader, grandchild, detached grandchild, the one that tried to
 * break away (absent where the system refused to start it), cmd.exe and the great-grandchild below.
 */
export const familyOf = (pids: ReadonlyArray<number>): Effect.Effect<ReadonlyArray<Identity>> =>
  Effect.gen(function*() {
    const started = living(pids.filter((pid) => pid !== 0))
    const below = yield* eventually("the great-grandchild runs", () => childrenOf(started.at(-1)!, "ping.exe")[0])
    return [...started, below]
  })
