/** The tenants: one server for each, started when it is asked for, with its directory. */
import { ArchiveStore, Child, DirectoryState, Endpoint, Pool } from "@treeline/core"
import { Effect } from "effect"
import { ChildProcess } from "effect/process"
import { fileURLToPath } from "node:url"

const shop = fileURLToPath(new URL("programs/shop.mjs", import.meta.url))

/** A server that nobody has used for this long is ended, ms. */
export const idleAfter = 1000

/** The pool; `folder` gets the directories of those that run and the archives of the others. */
export const make = Effect.fn("Tenants.make")(function*(folder: string) {
  const state = yield* DirectoryState.make({
    directory: `${folder}/running`,
    store: yield* ArchiveStore.fromFileSystem(`${folder}/archives`)
  })
  return yield* Pool.make({
    name: "tenants",
    build: Effect.fnUntraced(function*(tenant: string, { token }: Pool.Incarnation) {
      return {
        child: Child.make("shop", {
          command: ChildProcess.make(process.execPath, [shop], {
            cwd: yield* state.path(tenant),
            env: { TENANT: tenant, TOKEN: token },
            extendEnv: true
          })
        }),
        endpoint: Endpoint.fromLine(/^listening on (\S+)/)
      }
    }),
    hooks: state,
    idle: { after: idleAfter },
    capacity: { max: 20 }
  })
})

export type Tenants = Effect.Success<ReturnType<typeof make>>
