/** Shutdown plans as a shim is told them. */
import * as Duration from "effect/Duration"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import * as Shim from "../daemon/Shim.ts"
import { InvalidSpec } from "../Errors.ts"
import * as ShutdownPlan from "../ShutdownPlan.ts"

const nameOf = (action: ShutdownPlan.Action): { readonly action: string; readonly target: ShutdownPlan.Target } => {
  switch (action._tag) {
    case "Signal":
      return { action: action.signal, target: action.target }
    case "CloseStdin":
      return { action: "closeStdin", target: "tree" }
    case "Interrupt":
      return { action: "interrupt", target: "tree" }
    case "RequestClose":
      return { action: "requestClose", target: "tree" }
    case "Run":
      return { action: "run", target: "tree" }
  }
}

const decode = Schema.decodeUnknownResult(Shim.Plan)

/** The plan as data. One that runs an effect, or sends a signal that no person sends, can't be told to another process. */
export const encode = (plan: ShutdownPlan.ShutdownPlan): Result.Result<Shim.Plan, InvalidSpec> =>
  Result.flatMap(ShutdownPlan.validate(plan), ({ cap, steps }) =>
    Result.mapError(
      decode({ cap, steps: steps.map(({ action, within }) => ({ ...nameOf(action), within })) }),
      () =>
        new InvalidSpec({
          field: "shutdown",
          problem: "a child that is kept can only be ended by signals, by the end of its input and by window messages"
        })
    ))

/** The plan that is meant. */
export const decodePlan = ({ cap, steps }: Shim.Plan): ShutdownPlan.ShutdownPlan =>
  ShutdownPlan.make(steps.map(ShutdownPlan.named), { cap: Duration.millis(cap) })

/** How long the end by a plan may take, in ms. */
export const longest = ({ cap, steps }: Shim.Plan): number => steps.reduce((sum, step) => sum + step.within, cap)
