/**
 * Who keeps a service: a small process of its own, the shim, that hosts the service's process tree and goes on when the
 * daemon ends. It holds a claim in the state folder that is named after the service, so there is at most one, and a
 * later process with its pid is never taken for it.
 */
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import type { ClaimUndecided, StateFolderError } from "../Errors.ts"
import * as SafeName from "../internal/SafeName.ts"
import { ProcessIdentity } from "../ProcessIdentity.ts"
import * as Claim from "./Claim.ts"

/** What a shim says of itself. No argument, environment value or secret is in it. */
export const Facts = Schema.Struct({
  service: Schema.String,
  version: Schema.String,
  /** The file of the shim: while it lives, nothing of a managed install that it needs is removed. */
  program: Schema.String.pipe(Schema.withDecodingDefaultKey(Effect.succeed(""))),
  /** It can be talked to. */
  listens: Schema.Boolean,
  /** Of what it has launched: `digest` of the description, the leader, and how long its orderly end may take, in ms. */
  launched: Schema.NullOr(Schema.Struct({
    digest: Schema.String,
    leader: ProcessIdentity,
    grace: Schema.Number
  }))
})
export type Facts = typeof Facts.Type

/** A service that is kept: its shim, and its leader as long as something was launched. */
export const Kept = Schema.Struct({
  service: Schema.String,
  /** Of the shim. */
  host: Schema.Int,
  /** Of the service's leader, which may have ended. */
  pid: Schema.NullOr(Schema.Int),
  since: Schema.Number
})
export type Kept = typeof Kept.Type

export type Place = Pick<Claim.Place<unknown>, "folder" | "platform">

/** Before the name of a service in the state folder. */
const prefix = "keep-"

/** Whether a service of this name can be kept: files are named after it. */
export const isKeepable = (service: string): boolean => SafeName.encode(service) !== undefined

/** The name of a service's claim, of its socket and of its log: the same for no two services, in every file system. */
export const nameOf = (service: string): string => `${prefix}${SafeName.encode(service) ?? ""}`

/** The claim on a service. */
export const claimOf = ({ folder, platform }: Place, service: string): Claim.Place<Facts> => ({
  folder,
  platform,
  name: nameOf(service),
  info: Facts
})

/** The names of all claims in the folder. */
const names = ({ folder }: Place): Effect.Effect<ReadonlyArray<string>, StateFolderError> =>
  Effect.map(folder.list("."), (all) => all.filter((name) => name.startsWith(prefix) && !name.includes(".")))

/** What was found of one service; `name` is that of its claim. */
export interface Found {
  readonly name: string
  readonly state: Claim.State<Facts>
}

/** Looks at all claims, and changes nothing. */
export const look = (place: Place): Effect.Effect<ReadonlyArray<Found>, StateFolderError> =>
  Effect.flatMap(
    names(place),
    (all) =>
      Effect.forEach(
        all,
        (name) => Effect.map(Claim.look({ ...place, name, info: Facts }), (state) => ({ name, state }))
      )
  )

/** The services whose shims live, for people. */
export const list = (place: Place): Effect.Effect<ReadonlyArray<Kept>, StateFolderError> =>
  Effect.map(look(place), (found) =>
    found.flatMap(({ state }) => {
      if (state._tag !== "Held") return []
      const { holder, info, since } = state.holding
      return [{ service: info.service, host: holder.pid, pid: info.launched?.leader.pid ?? null, since }]
    }))

/**
 * What is to be done before a service runs.
 *
 * - `Adopt`: its shim lives and has launched what is wanted.
 * - `EndFirst`: a shim lives that has launched something else, or nothing.
 * - `Sweep`: a shim has died; what it hosted has to be gone first.
 * - `Launch`: there is none.
 * - `Refuse`: that can't be told.
 */
export type Decision =
  | { readonly _tag: "Adopt"; readonly holding: Claim.Holding<Facts> }
  | { readonly _tag: "EndFirst"; readonly holding: Claim.Holding<Facts> }
  | { readonly _tag: "Sweep"; readonly holding: Claim.Holding<Facts> | null }
  | { readonly _tag: "Launch" }
  | { readonly _tag: "Refuse"; readonly error: ClaimUndecided }

/**
 * Decides by the claim and the digest of what is wanted. Pure.
 *
 * @example
 * ```ts
 * import { Kept } from "@treeline/core/daemon"
 * import { deepStrictEqual } from "node:assert"
 *
 * const holder = { pid: 4711, startTime: "123", boot: "b" }
 * const launched = { digest: "of other arguments", leader: { ...holder, pid: 4712 }, grace: 10_000 }
 * const info = { service: "web", version: "1.0.0", program: "treeline", listens: true, launched }
 * const state = { _tag: "Held" as const, holding: { holder, since: 0, info } }
 * deepStrictEqual(Kept.decide(state, "of these arguments")._tag, "EndFirst")
 * deepStrictEqual(Kept.decide(state, "of other arguments")._tag, "Adopt")
 * ```
 */
export const decide = (state: Claim.State<Facts>, digest: string): Decision => {
  switch (state._tag) {
    case "Free":
      return { _tag: "Launch" }
    case "Stale":
      return { _tag: "Sweep", holding: state.holding }
    case "Undecided":
      return { _tag: "Refuse", error: state.error }
    case "Held":
      return {
        _tag: state.holding.info.launched?.digest === digest ? "Adopt" : "EndFirst",
        holding: state.holding
      }
  }
}
