/** What both engines start with: who the host is, its guardian, and the end of what dead hosts have left. */
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { Guardian, sweepOrphaned } from "./Guardian.ts"
import * as HostRecord from "./HostRecord.ts"
import * as Numbers from "./Numbers.ts"
import type { Options } from "./Options.ts"
import * as ProcTable from "./ProcTable.ts"
import type { TagHost } from "./Tag.ts"

export interface Base {
  readonly host: TagHost
  readonly shell: string
  /** Tells this platform from others in the same process. */
  readonly instance: number
  readonly guardian: Guardian
}

const defaultGrace = 500

/** The guardian ends with the scope. */
export const make = (
  options: Options,
  parts: { readonly linux: boolean; readonly tagged: boolean }
): Effect.Effect<Base, never, Scope.Scope> =>
  Effect.gen(function*() {
    const shell = options.shell ?? "/bin/sh"
    const grace = options.hostDeathGrace ?? defaultGrace
    // Whatever table it uses: records, sweepers and other hosts know it by this.
    const host: TagHost = { pid: process.pid, start: ProcTable.ownStart() }
    const instance = Numbers.instance()
    const context = yield* Effect.context<never>()
    const guardian = new Guardian({
      warn: (message) => void Effect.runForkWith(context)(Effect.logWarning(message)),
      shell,
      host,
      tagged: parts.tagged,
      grace,
      openRecord: () => HostRecord.HostRecord.open(host, instance)
    })
    yield* Effect.addFinalizer(() => Effect.sync(() => guardian.close()))
    if (options.sweepOrphaned !== false && parts.linux) {
      const dead = HostRecord.ofDead().filter(({ guarded }) => !guarded)
      const problems = dead.length === 0 ? [] : yield* Effect.promise(() => sweepOrphaned(dead, grace))
      for (const problem of problems) yield* Effect.logWarning(problem)
    }
    return { host, shell, instance, guardian }
  })
