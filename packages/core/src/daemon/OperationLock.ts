/**
 * One at a time: commands that change a daemon, such as start and stop, for each state folder. Who waits too long is told
 * who is at work. A holder that dies lets go.
 */
import * as Clock from "effect/Clock"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import { type ClaimUndecided, type InvalidSpec, OperationBusy, type StateFolderError } from "../Errors.ts"
import { millis, monotonic } from "../internal/Time.ts"
import type { ProcessIdentity } from "../ProcessIdentity.ts"
import * as Claim from "./Claim.ts"

/** What is being done, such as `start`. */
const Info = Schema.Struct({ operation: Schema.String })

/** A look again at who is at work, in ms. */
const poll = 50

export interface Options extends Pick<Claim.Place<unknown>, "folder" | "platform"> {
  readonly self: ProcessIdentity
  /** What is to be done, for whoever waits. */
  readonly operation: string
  /** How long to wait for somebody else. Default: 75 s. */
  readonly within?: Duration.Input | undefined
}

/** Waits for its turn, then has it until the scope closes. */
export const take = Effect.fn("OperationLock.take")(function*(
  options: Options
): Effect.fn.Return<void, OperationBusy | ClaimUndecided | StateFolderError | InvalidSpec, Scope.Scope> {
  const within = yield* Effect.fromResult(millis("within", options.within ?? "75 seconds"))
  const clock = yield* Clock.Clock
  const began = monotonic(clock)
  const place: Claim.Place<typeof Info.Type> = { ...options, name: "operation", info: Info }
  while (true) {
    const outcome = yield* Claim.take(place, options.self, { operation: options.operation })
    if (Result.isSuccess(outcome)) return
    const { holder, info, since } = outcome.failure
    const left = within - (monotonic(clock) - began)
    if (left <= 0) {
      return yield* new OperationBusy({
        operation: options.operation,
        holder: { pid: holder.pid, operation: info.operation, since },
        within
      })
    }
    yield* Effect.sleep(Math.min(poll, left))
  }
})
