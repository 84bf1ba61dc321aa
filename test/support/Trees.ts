/**
 * Trees of `tree.sh` and of short scripts, started through Treeline or, as the negative control, by Node's child_process.
 */
import { assert } from "@effect/vitest"
import { ProcessPlatform, type ProcessTree } from "@treeline/core"
import { Effect, Exit, Scope } from "effect"
import { ChildProcess } from "effect/process"
import * as child_process from "node:child_process"
import { once } from "node:events"
import { eventually } from "./Eventually.ts"
import { treeCommand } from "./Host.ts"
import type { Reported, Scratch } from "./Scratch.ts"

/** A tree for a test: a role of tree.sh, or a script whose `$1` is the report and `$2` is tree.sh. */
export interface Shape {
  readonly command: (scratch: Scratch) => readonly [string, ...Array<string>]
  /** How many processes report themselves. */
  readonly reports: number
}

/** A role of tree.sh. */
export const role = (name: string, reports: number, count = 0): Shape => ({
  command: (scratch) => treeCommand(name, scratch, count) as [string, ...Array<string>],
  reports
})

/** A script of its own; every process of it appends `NAME PID` to the file `$1`. */
export const script = (text: string, reports: number): Shape => ({
  command: (scratch) => ["sh", "-c", text, "sh", scratch.report, treeCommand("", scratch)[1]!],
  reports
})

export const commandOf = (shape: Shape, scratch: Scratch, options?: ChildProcess.CommandOptions) => {
  const [program, ...args] = shape.command(scratch)
  return ChildProcess.make(program, args, { ...options })
}

/** A launched tree whose processes have all reported themselves, and how its scope is closed. */
export interface Running {
  readonly tree: ProcessTree.ProcessTree
  readonly reported: ReadonlyArray<Reported>
  readonly close: Effect.Effect<void>
}

/** Launches in a scope of its own. */
export const launch = (
  shape: Shape,
  scratch: Scratch,
  options?: ProcessPlatform.LaunchOptions
): Effect.Effect<Running, ProcessPlatform.LaunchFailure, ProcessPlatform.ProcessPlatform | Scope.Scope> =>
  Effect.gen(function*() {
    const platform = yield* ProcessPlatform.ProcessPlatform
    const scope = yield* Effect.acquireRelease(Scope.make(), (scope, exit) => Scope.close(scope, exit))
    const already = scratch.reported().length
    const tree = yield* Scope.provide(platform.launch(commandOf(shape, scratch), options), scope)
    const reported = yield* scratch.awaitReported(already + shape.reports)
    return { tree, reported: reported.slice(already), close: Scope.close(scope, Exit.void) }
  })

/** Nothing that has reported itself lives at this instant. */
export const assertNoneLiving = (scratch: Scratch): Effect.Effect<void> =>
  Effect.sync(() => assert.deepStrictEqual(scratch.living(), []))

/** How the negative control ends the program, as people do it with child_process. */
export type NodeEnd = "SIGTERM" | "SIGKILL" | "none"

/**
 * The same program by Node's child_process, ended in the ordinary way: something of it lives on, so the case can fail.
 * What lives is killed by the scratch folder.
 */
export const nodeLeavesSomething = (shape: Shape, scratch: Scratch, end: NodeEnd): Effect.Effect<void> =>
  Effect.gen(function*() {
    const [program, ...args] = shape.command(scratch)
    const child = child_process.spawn(program, args, { stdio: "ignore" })
    const exit = once(child, "exit")
    yield* scratch.awaitReported(shape.reports)
    if (end !== "none") child.kill(end)
    const window = 150
    // A leader that ignores the signal lives on itself; for the others its end is awaited first.
    yield* Effect.promise(() => Promise.race([exit, new Promise((resolve) => setTimeout(resolve, window))]))
    yield* Effect.sleep(window)
    // Processes that pass the baton live too short to be seen, but they go on to report.
    const reported = scratch.reported().length
    yield* eventually(
      "child_process leaves something behind",
      () => scratch.living().length > 0 || scratch.reported().length > reported,
      { within: 2_000 }
    )
    child.unref()
  })
