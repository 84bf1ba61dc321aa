/** Which process this is. */
import { ProcessPlatform } from "@treeline/core/ProcessPlatform"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import { InternalError } from "./Failure.ts"

/** For records. */
export const identity = Effect.gen(function*() {
  const platform = yield* ProcessPlatform
  const found = yield* platform.identify(process.pid)
  if (Option.isSome(found)) return found.value
  return yield* new InternalError({ detail: "the system does not tell when this process was started" })
})
