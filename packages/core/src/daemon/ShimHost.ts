/**
 * The shim's side: hosts one process tree for whichever daemon is there, and keeps what that has to be told while none is.
 *
 * The tree is contained by the platform as that of any host is, so it ends when the shim dies. Its newest output waits
 * here, and so does its exit status, until a daemon has taken them.
 */
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as ChildProcess from "effect/process/ChildProcess"
import * as Queue from "effect/Queue"
import * as Redacted from "effect/Redacted"
import * as RpcServer from "effect/rpc/RpcServer"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { InvalidSpec, LaunchError } from "../Errors.ts"
import * as ShimPlan from "../internal/ShimPlan.ts"
import * as Output from "../Output.ts"
import type { ProcessIdentity } from "../ProcessIdentity.ts"
import { ProcessPlatform } from "../ProcessPlatform.ts"
import type { ProcessTree } from "../ProcessTree.ts"
import * as ShutdownPlan from "../ShutdownPlan.ts"
import type * as Claim from "./Claim.ts"
import type { Gate } from "./Control.ts"
import type { Facts } from "./Kept.ts"
import * as Shim from "./Shim.ts"

export interface Options {
  /** The claim that this process holds, and what it says there. */
  readonly claim: Claim.Claim<Facts>
  readonly facts: Facts
  /** The bytes of each output that are kept while nobody reads it. Default: 1 MiB. */
  readonly outputBytes?: number | undefined
  /** How long it waits for a launch, in ms. Default: 30,000. */
  readonly launchWithin?: number | undefined
  /** Who has started this process. Once it has gone, nothing is launched any more. */
  readonly starter?: ProcessIdentity | undefined
}

export interface ShimHost {
  /** Answers over the protocol that is given, for as long as the layer lives. */
  readonly layer: Layer.Layer<never, never, RpcServer.Protocol | Gate>
  /** Nothing is hosted any more, and nobody has to be told anything. */
  readonly awaitEnd: Effect.Effect<void>
  /** Ends the tree, by its plan or at once, and then there is nothing to host. */
  readonly end: (options: { readonly force: boolean }) => Effect.Effect<void>
}

const defaultOutputBytes = 1024 * 1024

const defaultLaunchWithin = 30_000

/** A look again whether who is to ask for a launch is there, in ms. */
const starterPause = 1000

/** A look again whether the claim is there, in ms. */
const claimPause = 10_000

/** How long whoever asked for a launch that has failed has to hear why, in ms. */
const lastWords = 1000

/** Bytes of an output that go in one message. */
const largestPiece = 256 * 1024

const commandOf = (request: Shim.Launch): ChildProcess.StandardCommand => {
  const { args, command, cwd, env, extendEnv, outputs, shell } = request
  return ChildProcess.make(command, args.map((arg) => Redacted.make(arg)), {
    ...cwd !== null && { cwd },
    env: Object.fromEntries(
      Object.entries(env).map(([name, value]) => [name, value === null ? undefined : Redacted.make(value)])
    ),
    extendEnv,
    shell,
    stdin: { stream: "pipe", endOnDone: false },
    additionalFds: Object.fromEntries(outputs.map((fd) => [ChildProcess.fdName(fd), { type: "output" as const }]))
  })
}

const outputOf = (tree: ProcessTree, fd: number): Output.Output =>
  fd === 1 ? tree.stdout : fd === 2 ? tree.stderr : tree.output(fd)

/** Several pieces that follow each other as one. */
const join = (pieces: ReadonlyArray<Output.Piece>): Output.Piece => {
  const [first] = pieces
  if (first === undefined || pieces.length === 1) return first ?? { offset: 0, bytes: new Uint8Array(0) }
  const bytes = new Uint8Array(pieces.reduce((sum, piece) => sum + piece.bytes.length, 0))
  let at = 0
  for (const piece of pieces) {
    bytes.set(piece.bytes, at)
    at += piece.bytes.length
  }
  return { offset: first.offset, bytes }
}

/** An output from `from` on, with what was lost of it. */
const told = (output: Output.Output, from: number, waiting: number): Stream.Stream<Shim.Piece> => {
  let expected = from
  return output.pieces(waiting).pipe(
    Stream.catch(() => Stream.empty),
    Stream.mapArray((pieces) => {
      const { bytes, offset } = join(pieces)
      const known = Math.min(bytes.length, Math.max(0, expected - offset))
      const lost = Math.max(0, offset - expected)
      const rest = bytes.subarray(known)
      expected = Math.max(expected, offset + bytes.length)
      const cut: Array<Shim.Piece> = []
      for (let at = largestPiece; at < rest.length; at += largestPiece) {
        cut.push({ offset: offset + known + at, lost: 0, bytes: rest.subarray(at, at + largestPiece) })
      }
      return [{ offset: offset + known, lost, bytes: rest.subarray(0, largestPiece) }, ...cut]
    }),
    Stream.rechunk(1)
  )
}

/** Hosts one tree, in this scope. */
export const make = Effect.fn("ShimHost.make")(function*(
  { claim, facts, launchWithin = defaultLaunchWithin, outputBytes = defaultOutputBytes, starter }: Options
): Effect.fn.Return<ShimHost, never, ProcessPlatform | Scope.Scope> {
  const platform = yield* ProcessPlatform
  const scope = yield* Scope.Scope
  const clock = yield* platform.clock
  const over = Deferred.makeUnsafe<void>()
  const launched = Deferred.makeUnsafe<ProcessTree>()
  const steps = new Set<(step: string) => void>()
  const taken = new Map<number, number>()
  let requested = false
  let ready = false
  let hosted: Omit<Shim.Hosted, "ready"> | undefined = undefined as typeof hosted

  const tree = Deferred.await(launched)
  const finish = Deferred.succeed(over, undefined)

  const launch = (request: Shim.Launch) =>
    Effect.uninterruptible(Effect.gen(function*() {
      if (requested) return yield* new InvalidSpec({ field: "service", problem: "it was launched here already" })
      requested = true
      // Nobody is served by a shim whose launch has failed: the next one has a shim of its own.
      return yield* Effect.onError(
        Effect.gen(function*() {
          const { drain, limits, require, shutdown } = request
          const own = yield* Scope.fork(scope)
          const tree = yield* platform.launch(commandOf(request), {
            require: require ?? undefined,
            limits: limits ?? undefined,
            shutdown: ShimPlan.decodePlan(shutdown),
            output: Output.ring(outputBytes),
            drain,
            onStep: (step) => {
              for (const tell of steps) tell(step)
            }
          }).pipe(Scope.provide(own))
          const { command, identity, level } = tree
          const grace = ShimPlan.longest(shutdown)
          // What nobody could find again must not live on.
          yield* claim.tell({ ...facts, launched: { digest: request.digest, leader: identity, grace } }).pipe(
            Effect.catch((error) =>
              Effect.andThen(
                Scope.close(own, Exit.void),
                new LaunchError({ command, reason: "Unknown", detail: error.message })
              )
            )
          )
          hosted = { identity, command, level, outputs: [1, 2, ...request.outputs] }
          Deferred.doneUnsafe(launched, Exit.succeed(tree))
          yield* Effect.logInfo(`launched ${command}, process ${identity.pid}`)
          yield* Effect.forkIn(
            Effect.flatMap(
              tree.exited,
              (status) => Effect.logInfo(`process ${identity.pid} has ended: ${status._tag}`)
            ),
            scope
          )
          return { ...hosted, ready }
        }),
        // Not at once: whoever asked for it hears why.
        () => Effect.forkIn(Effect.andThen(clock.sleep(Duration.millis(lastWords)), finish), scope)
      )
    }))

  const end: ShimHost["end"] = ({ force }) =>
    Effect.suspend(() =>
      hosted === undefined
        ? Effect.asVoid(finish)
        : Effect.gen(function*() {
          const living = yield* tree
          yield* Effect.orDie(living.shutdown(force ? ShutdownPlan.kill : undefined))
          yield* finish
        })
    )

  const handlers = Shim.Shim.of({
    Look: () => Effect.sync(() => hosted === undefined ? null : { ...hosted, ready }),
    Launch: launch,
    Attend: () =>
      Effect.acquireUseRelease(
        Effect.logInfo("a daemon is there"),
        () => Effect.never,
        () => Effect.logInfo("the daemon has gone")
      ),
    // What was taken before it was ready may have been its announcement, which nobody has heard.
    Output: ({ fd }) =>
      Stream.unwrap(
        Effect.map(tree, (tree) => told(outputOf(tree, fd), ready ? taken.get(fd) ?? 0 : 0, outputBytes))
      ),
    Taken: (payload) =>
      Effect.sync(() => {
        for (const { bytes, fd } of payload.taken) taken.set(fd, bytes)
      }),
    Ready: () =>
      Effect.sync(() => {
        ready = true
      }),
    Exited: () => Effect.flatMap(tree, ({ exited }) => exited),
    Drained: () => Effect.flatMap(tree, ({ drained }) => drained),
    Empty: () => Effect.flatMap(tree, ({ empty }) => empty),
    Members: () => Effect.flatMap(tree, ({ members }) => members),
    Usage: () => Effect.flatMap(tree, ({ usage }) => usage),
    Signal: ({ signal, target }) => Effect.flatMap(tree, (tree) => tree.signal(signal, target)),
    Write: ({ bytes }) =>
      Effect.flatMap(
        tree,
        ({ stdin }) =>
          Effect.match(Stream.run(Stream.make(bytes), stdin), { onFailure: () => false, onSuccess: () => true })
      ),
    Shutdown: ({ plan }) =>
      Stream.callback<typeof Shim.Ending.Type>((queue) =>
        Effect.gen(function*() {
          const living = yield* tree
          const step = (step: string) => void Queue.offerUnsafe(queue, { _tag: "Step", step })
          yield* Effect.acquireRelease(
            Effect.sync(() => steps.add(step)),
            () => Effect.sync(() => steps.delete(step))
          )
          const survivors = yield* Effect.orDie(living.shutdown(ShimPlan.decodePlan(plan)))
          Queue.offerUnsafe(queue, { _tag: "Over", survivors })
          Queue.endUnsafe(queue)
        })
      ),
    End: () => end({ force: false })
  })

  yield* Effect.forkScoped(
    Effect.andThen(clock.sleep(Duration.millis(launchWithin)), Effect.suspend(() => requested ? Effect.void : finish))
  )
  // Somebody may have been told since the death of the starter that nothing is kept, so nothing may begin to be.
  const attended = (starter: ProcessIdentity): Effect.Effect<void> =>
    Effect.gen(function*() {
      const standing = yield* platform.standing(starter)
      if (requested) return
      if (standing !== "Gone") {
        yield* clock.sleep(Duration.millis(starterPause))
        return yield* attended(starter)
      }
      requested = true
      yield* Effect.logWarning(
        `process ${starter.pid}, which has started this one, has gone before it asked for a launch`
      )
      yield* finish
    })
  if (starter !== undefined) yield* Effect.forkScoped(attended(starter), { startImmediately: true })
  // Nobody could find again what is hosted here, and the next daemon would start it a second time.
  const claimed = Effect.gen(function*() {
    do yield* clock.sleep(Duration.millis(claimPause))
    while (yield* Effect.orElseSucceed(claim.isThere, () => true))
    yield* Effect.logError("the claim was taken away by hand, so nobody can find this process any more: the end")
    yield* end({ force: false })
  })
  yield* Effect.forkScoped(claimed)
  const serve = Effect.forkScoped(RpcServer.make(Shim.Shim, { disableFatalDefects: true, disableTracing: true }))
  return {
    layer: Layer.provide(Layer.effectDiscard(serve), Shim.Shim.toLayer(handlers)),
    awaitEnd: Deferred.await(over),
    end
  }
})
