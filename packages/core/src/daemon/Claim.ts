/**
 * At most one living process holds a name in a state folder.
 *
 * A claim is a folder with one file, whose name is its holder's own and never comes twice; the file says which process
 * holds it. The folder is made ready elsewhere and moved to its name, which succeeds only where there is no folder or an
 * empty one (rename(2)). So a claim is there with all that is in it or not at all, of two at once only one succeeds, and
 * what a dead holder has left is removed by a name that can't be anybody else's: never the claim of a successor (seed
 * C5). No lock or descriptor has to be held for it, and every system can do it.
 *
 * The holder is known by pid, start time and boot, so a later process with its pid does not keep a claim alive (seed C18).
 * Processes that use one folder must see each other: the same machine, the same pid namespace.
 */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Option from "effect/Option"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import * as Scope from "effect/Scope"
import { ClaimLost, ClaimUndecided, type StateFolderError } from "../Errors.ts"
import { randomName } from "../internal/RandomName.ts"
import { equals, isPid, ProcessIdentity, type Standing } from "../ProcessIdentity.ts"
import type { ProcessPlatform } from "../ProcessPlatform.ts"
import type { StateFolder } from "./StateFolder.ts"

/** Who holds it, since when (ms, wall clock), and what the holder tells of itself. */
export interface Holding<Info> {
  readonly holder: ProcessIdentity
  readonly since: number
  readonly info: Info
}

/**
 * What is found of a claim.
 *
 * - `Free`: nobody holds it.
 * - `Held`: by a living process.
 * - `Stale`: its holder has ended; the next one who wants it removes it. Null when the holder has written nothing.
 * - `Undecided`: it can't be read, or whether its holder lives can't be told. It is left as it is.
 */
export type State<Info> =
  | { readonly _tag: "Free" }
  | { readonly _tag: "Held"; readonly holding: Holding<Info> }
  | { readonly _tag: "Stale"; readonly holding: Holding<Info> | null }
  | { readonly _tag: "Undecided"; readonly error: ClaimUndecided }

/** A claim that this process holds. */
export interface Claim<Info> {
  readonly holder: ProcessIdentity
  /** Tells something else, in one step. Fails when somebody has taken the claim away by hand. */
  readonly tell: (info: Info) => Effect.Effect<void, ClaimLost | StateFolderError>
  /** Whether it is there still; false when somebody has taken it away by hand. */
  readonly isThere: Effect.Effect<boolean, StateFolderError>
  /** Whether the end of its scope leaves it, for what this process becomes next; see `takeOver`. At first it does not. */
  readonly setKept: (kept: boolean) => Effect.Effect<void>
}

/** Where a claim is, and how its holders are judged. */
export interface Place<Info> {
  readonly folder: StateFolder
  readonly platform: Pick<ProcessPlatform["Service"], "identify" | "standing">
  /** A word without dots. */
  readonly name: string
  readonly info: Schema.Codec<Info, unknown>
}

/** How often it is tried anew: each time somebody else came or went in between. */
const attempts = 100

const suffix = ".json"

/** The pid in the name of an entry: `PID-RANDOM`. */
const pidOf = (id: string): number | undefined => {
  const pid = Number(/^(\d+)-[0-9a-f]+$/.exec(id)?.[1])
  return isPid(pid) ? pid : undefined
}

const textOf = <Info>(info: Schema.Codec<Info, unknown>) =>
  Schema.fromJsonString(Schema.Struct({ holder: ProcessIdentity, since: Schema.Number, info }))

/** One entry and what there is to judge it by: its text and the standing of its holder. */
export const decide = <Info>(
  path: string,
  read: Result.Result<Holding<Info> | null, string>,
  standing: Standing
): State<Info> => {
  if (Result.isFailure(read)) {
    const detail = read.failure
    return { _tag: "Undecided", error: new ClaimUndecided({ path, pid: null, reason: "Unreadable", detail }) }
  }
  const holding = read.success
  if (standing === "Gone") return { _tag: "Stale", holding }
  if (standing === "Alive" && holding !== null) return { _tag: "Held", holding }
  const detail = holding === null
    ? "it is empty, and a process with the pid in its name lives"
    : `whether process ${holding.holder.pid} is the one that wrote it can't be told`
  return {
    _tag: "Undecided",
    error: new ClaimUndecided({ path, pid: holding?.holder.pid ?? null, reason: "Unsure", detail })
  }
}

/** Who holds a claim weighs more than what can't be told, and that more than what is left over. */
const weight: Readonly<Record<State<unknown>["_tag"], number>> = { Held: 3, Undecided: 2, Stale: 1, Free: 0 }

interface Entry<Info> {
  readonly name: string
  readonly state: State<Info>
}

/** Judges one file; undefined when it has just gone. */
const entryAt = <Info>(
  { folder, info, platform }: Place<Info>,
  within: string,
  name: string
): Effect.Effect<Entry<Info> | undefined, StateFolderError> =>
  Effect.gen(function*() {
    const file = `${within}/${name}`
    const path = `${folder.path}/${file}`
    const pid = name.endsWith(suffix) ? pidOf(name.slice(0, -suffix.length)) : undefined
    if (pid === undefined) return { name, state: decide<Info>(path, Result.fail("it is no claim"), "Unsure") }
    const text = yield* folder.read(file)
    if (text === undefined) return undefined
    if (text === "") {
      // Nobody who wrote a claim leaves it empty, but a disk may after a loss of power.
      const somebody = Option.isSome(yield* platform.identify(pid))
      return { name, state: decide<Info>(path, Result.succeed(null), somebody ? "Unsure" : "Gone") }
    }
    const holding = Schema.decodeUnknownResult(textOf(info))(text)
    if (Result.isFailure(holding) || !isPid(holding.success.holder.pid)) {
      return { name, state: decide<Info>(path, Result.fail("its content is no claim"), "Unsure") }
    }
    return {
      name,
      state: decide<Info>(path, Result.succeed(holding.success), yield* platform.standing(holding.success.holder))
    }
  })

const entries = <Info>(place: Place<Info>): Effect.Effect<ReadonlyArray<Entry<Info>>, StateFolderError> =>
  Effect.flatMap(
    place.folder.list(place.name),
    (names) =>
      Effect.map(
        Effect.forEach(names, (name) => entryAt(place, place.name, name)),
        (found) => found.filter((entry) => entry !== undefined)
      )
  )

const strongest = <Info>(found: ReadonlyArray<Entry<Info>>): State<Info> =>
  found.reduce<State<Info>>((best, { state }) => weight[state._tag] > weight[best._tag] ? state : best, {
    _tag: "Free"
  })

/** Who holds it; changes nothing. */
export const look = <Info>(place: Place<Info>): Effect.Effect<State<Info>, StateFolderError> =>
  Effect.map(entries(place), strongest)

/** Removes what dead holders have left; what somebody may still hold stays. */
export const clean = <Info>(place: Place<Info>): Effect.Effect<void, StateFolderError> =>
  Effect.gen(function*() {
    for (const { name, state } of yield* entries(place)) {
      if (state._tag === "Stale") yield* place.folder.removeFile(`${place.name}/${name}`)
    }
    yield* place.folder.removeEmptyFolder(place.name)
  })

/** Removes what died in the middle of taking or telling: its name is not anybody else's. */
const sweepDrafts = <Info>(place: Place<Info>): Effect.Effect<void, StateFolderError> =>
  Effect.gen(function*() {
    const { folder, name, platform } = place
    for (const draft of yield* folder.list(".")) {
      if (!draft.startsWith(`${name}.`)) continue
      const [, id = "", kind] = draft.split(".")
      const pid = pidOf(id)
      if (pid === undefined || (kind !== "new" && kind !== "next")) continue
      // What is half written names nobody; its own name does.
      const nobody = Option.isNone(yield* platform.identify(pid))
      if (kind === "next") {
        if (nobody) yield* folder.removeFile(draft)
        continue
      }
      const entry = yield* entryAt(place, draft, `${id}${suffix}`)
      if (!nobody && entry?.state._tag !== "Stale") continue
      yield* folder.removeFile(`${draft}/${id}${suffix}`)
      yield* folder.removeEmptyFolder(draft)
    }
  })

/** What a holder can do with its entry, which the end of the scope removes. */
const hold = <Info>(
  { folder, info, name }: Place<Info>,
  { entry, id, self, since }: {
    readonly self: ProcessIdentity
    readonly since: number
    readonly id: string
    readonly entry: string
  }
): Effect.Effect<Claim<Info>, never, Scope.Scope> =>
  Effect.gen(function*() {
    const encode = Schema.encodeSync(textOf(info))
    const next = `${name}.${id}.next`
    let kept = false
    yield* Effect.addFinalizer(() =>
      kept ? Effect.void : Effect.ignore(
        folder.removeFile(next).pipe(
          Effect.andThen(folder.removeFile(`${name}/${entry}`)),
          Effect.andThen(folder.removeEmptyFolder(name))
        )
      )
    )
    const isThere = Effect.map(folder.list(name), (names) => names.includes(entry))
    const tell = (info: Info) =>
      Effect.uninterruptible(Effect.gen(function*() {
        yield* folder.removeFile(next)
        yield* folder.write(next, encode({ holder: self, since, info }))
        if (!(yield* isThere)) {
          yield* folder.removeFile(next)
          return yield* new ClaimLost({ path: `${folder.path}/${name}` })
        }
        yield* folder.replace(next, `${name}/${entry}`)
      }))
    return {
      holder: self,
      tell,
      isThere,
      setKept: (value) =>
        Effect.sync(() => {
          kept = value
        })
    }
  })

/** All living processes that hold it: two while one takes it over from the other. */
export const holders = <Info>(place: Place<Info>): Effect.Effect<ReadonlyArray<Holding<Info>>, StateFolderError> =>
  Effect.map(
    entries(place),
    (found) => found.flatMap(({ state }) => state._tag === "Held" ? [state.holding] : [])
  )

/**
 * Takes the claim from a living holder that wants it: from then on both hold it, until `from` ends or gives its part back,
 * so at no instant nobody does, and what goes wrong with the successor is no harm to the predecessor. `from` may be this
 * very process before it became another program (execve(2)); what it held and has kept (`setKept`) is this program's then.
 *
 * None when `from` does not hold it, or `accept` refuses what it tells.
 */
export const takeOver = <Info>(
  place: Place<Info>,
  from: ProcessIdentity,
  self: ProcessIdentity,
  info: Info,
  accept: (info: Info) => boolean
): Effect.Effect<Option.Option<Claim<Info>>, ClaimLost | StateFolderError, Scope.Scope> =>
  Effect.uninterruptible(Effect.gen(function*() {
    const { folder, name } = place
    const predecessor = Effect.map(
      entries(place),
      (found) =>
        found.find(({ state }) =>
          state._tag === "Held" && equals(state.holding.holder, from) && accept(state.holding.info)
        )
    )
    const found = yield* predecessor
    if (found === undefined) return Option.none()
    const since = yield* Clock.currentTimeMillis
    const id = `${self.pid}-${yield* randomName}`
    if (equals(from, self)) {
      const claim = yield* hold(place, { self, since, id, entry: found.name })
      yield* claim.tell(info)
      return Option.some(claim)
    }
    const scope = yield* Scope.fork(yield* Scope.Scope)
    const entry = `${id}${suffix}`
    const claim = yield* Scope.provide(scope)(hold(place, { self, since, id, entry }))
    const next = `${name}.${id}.next`
    yield* folder.write(next, Schema.encodeSync(textOf(place.info))({ holder: self, since, info }))
    yield* folder.replace(next, `${name}/${entry}`)
    // It may have died meanwhile, and somebody else be at work on what it has left.
    if ((yield* predecessor) !== undefined) return Option.some(claim)
    yield* Scope.close(scope, Exit.void)
    return Option.none()
  }))

/**
 * Takes it until the scope closes. When a living process holds it, that is returned, and nothing is changed. `self` is
 * this process.
 */
export const take = <Info>(
  place: Place<Info>,
  self: ProcessIdentity,
  info: Info
): Effect.Effect<Result.Result<Claim<Info>, Holding<Info>>, ClaimUndecided | StateFolderError, Scope.Scope> =>
  Effect.uninterruptible(Effect.gen(function*() {
    const { folder, name } = place
    const since = yield* Clock.currentTimeMillis
    const text = Schema.encodeSync(textOf(place.info))({ holder: self, since, info })
    const id = `${self.pid}-${yield* randomName}`
    const draft = `${name}.${id}.new`
    const entry = `${id}${suffix}`

    // Who has to wait writes nothing.
    const before = yield* look(place)
    if (before._tag === "Held") return Result.fail(before.holding)
    if (before._tag === "Undecided") return yield* before.error

    const scope = yield* Scope.fork(yield* Scope.Scope)
    yield* folder.makeFolder(".")
    yield* sweepDrafts(place)
    yield* Scope.addFinalizer(
      scope,
      Effect.ignore(Effect.andThen(folder.removeFile(`${draft}/${entry}`), folder.removeEmptyFolder(draft)))
    )
    const giveUp = <A>(outcome: A) => Effect.as(Scope.close(scope, Exit.void), outcome)
    return yield* Effect.gen(function*() {
      yield* folder.makeFolder(draft)
      yield* folder.write(`${draft}/${entry}`, text)
      for (let attempt = 1;; attempt++) {
        if (yield* folder.moveFolder(draft, name)) break
        const found = yield* entries(place)
        const state = strongest(found)
        if (state._tag === "Held") return yield* giveUp(Result.fail(state.holding))
        if (state._tag === "Undecided") return yield* state.error
        if (attempt === attempts) {
          const detail = `it could not be taken in ${attempts} attempts`
          return yield* new ClaimUndecided({ path: `${folder.path}/${name}`, pid: null, reason: "Unsure", detail })
        }
        for (const { name: left } of found) yield* folder.removeFile(`${name}/${left}`)
        yield* folder.removeEmptyFolder(name)
      }
      return Result.succeed(yield* Scope.provide(scope)(hold(place, { self, since, id, entry })))
    }).pipe(Effect.onError(() => Scope.close(scope, Exit.void)))
  }))
