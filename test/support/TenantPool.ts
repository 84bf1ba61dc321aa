/**
 * A pool whose children have their state in directories: each is a shell that reads what is there, says `up`, and
 * appends to its file when it starts and when it is asked to end.
 */
import { ArchiveStore, Child, DirectoryState, Pool, Probe } from "@treeline/core"
import { Effect } from "effect"
import { ChildProcess } from "effect/process"
import * as path from "node:path"

const script = `cd "$HOME"
trap 'echo "$LIFE ends" >> log; exit 0' TERM
echo "$LIFE starts" >> log
echo up
while :; do sleep 0.02; done`

export interface TenantOptions {
  /** Holds `tenants` and `archives`. */
  readonly folder: string
  /** What a child writes into its file. */
  readonly life: string
  readonly store?: (store: ArchiveStore.ArchiveStore) => ArchiveStore.ArchiveStore
  readonly hooks?: Omit<Pool.Hooks, "restore" | "retire">
  /** Never says that it is up. */
  readonly mute?: boolean
}

export const make = Effect.fnUntraced(
  function*({ folder, hooks, life, mute, store = (store) => store }: TenantOptions) {
    const state = yield* DirectoryState.make({
      directory: path.join(folder, "tenants"),
      store: store(yield* ArchiveStore.fromFileSystem(path.join(folder, "archives")))
    })
    return yield* Pool.make({
      name: "tenants",
      build: Effect.fnUntraced(function*(key: string) {
        const home = yield* state.path(key)
        return {
          child: Child.make("tenant", {
            command: ChildProcess.make("sh", ["-c", mute === true ? script.replace("echo up", ":") : script], {
              env: { HOME: home, LIFE: life },
              extendEnv: true
            }),
            readiness: Probe.readiness(Probe.line("up"), { within: mute === true ? "300 millis" : "20 seconds" })
          })
        }
      }),
      hooks: { ...hooks, restore: state.restore, retire: state.retire }
    })
  }
)
