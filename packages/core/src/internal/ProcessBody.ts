/** A child whose body is a process tree. */
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as ChildProcess from "effect/process/ChildProcess"
import * as Result from "effect/Result"
import type { Port } from "../Child.ts"
import { type Body, CurrentChild, type Remainder, type Running } from "../ChildSpec.ts"
import type { Keeper, KeptTree } from "../daemon/Keeper.ts"
import { InvalidSpec, Unkillable } from "../Errors.ts"
import type { Probe } from "../Probe.ts"
import type { ProcessInfo } from "../ProcessIdentity.ts"
import { type LaunchOptions, ProcessPlatform } from "../ProcessPlatform.ts"
import type { ProcessTree } from "../ProcessTree.ts"
import type * as ShutdownPlan from "../ShutdownPlan.ts"
import * as PortCheck from "./PortCheck.ts"

/**
 * The command with an input that stays open after a write, and with the descriptor on which it announces that it is
 * ready.
 */
const prepare = (command: ChildProcess.StandardCommand, readiness: Probe | undefined) => {
  const { options } = command
  const name = readiness?._tag === "Fd" ? `fd${readiness.fd}` as const : undefined
  return ChildProcess.make(command.command, command.args, {
    ...options,
    stdin: options.stdin ?? { stream: "pipe", endOnDone: false },
    additionalFds: name === undefined
      ? options.additionalFds
      : { [name]: { type: "output" }, ...options.additionalFds }
  })
}

const remainderOf = (command: string, survivors: ReadonlyArray<ProcessInfo>): Remainder => ({
  problem: survivors.length === 0 ? undefined : new Unkillable({ command, survivors }).message,
  survivors
})

const runningOf = (platform: ProcessPlatform["Service"], tree: ProcessTree, leaving: () => boolean): Running => {
  let left: ReadonlyArray<ProcessInfo> = []
  return {
    tree,
    ended: Effect.map(tree.exited, (status) => ({ _tag: "Exited", status })),
    ready: undefined,
    stop: ({ cap, steps }) =>
      leaving() ?
        Effect.succeed(remainderOf(tree.command, [])) :
        Effect.map(Effect.orDie(tree.shutdown({ cap, steps })), (survivors) => {
          left = survivors
          return remainderOf(tree.command, survivors)
        }),
    remains: Effect.suspend(() =>
      left.length === 0 ?
        Effect.succeed(remainderOf(tree.command, [])) :
        Effect.map(platform.processes, (processes) => {
          left = left.filter(({ pid, startTime }) =>
            processes.some((process) => process.alive && process.pid === pid && process.startTime === startTime)
          )
          return remainderOf(tree.command, left)
        })
    ),
    children: Effect.succeed([])
  }
}

const keptOf = (platform: ProcessPlatform["Service"], kept: KeptTree, { leaving }: Keeper): Running => ({
  ...runningOf(platform, kept.tree, leaving),
  kept
})

/** The body of a command whose readiness this probe asks for, and that is to listen at these ports. */
export const make = (
  command: ChildProcess.StandardCommand,
  launch: LaunchOptions,
  shutdown: ShutdownPlan.ShutdownPlan,
  probe: Probe | undefined,
  ports: ReadonlyArray<Port>,
  keeper?: Keeper
): Body<ProcessPlatform> => {
  const prepared = prepare(command, probe)
  return {
    _tag: "Process",
    // Readers share what comes under backpressure, so a probe would take output away from them.
    validate: () =>
      probe?._tag === "Line" && launch.output?._tag === "Backpressure"
        ? Result.fail(
          new InvalidSpec({
            field: "readiness.probe",
            problem: "a line can't be awaited under backpressure; use a ring"
          })
        )
        : PortCheck.validate(ports),
    start: ({ onStep }) =>
      Effect.gen(function*() {
        const platform = yield* ProcessPlatform
        const options = { ...launch, shutdown, onStep }
        // One that lives already listens at its ports itself.
        const found = keeper === undefined ? Option.none() : yield* keeper.find(prepared, options)
        if (Option.isSome(found)) return keptOf(platform, found.value, keeper!)
        if (ports.length > 0) {
          const name = (yield* CurrentChild)?.child ?? command.command
          // Nothing is owned yet, so a stop need not wait for it.
          yield* Effect.interruptible(PortCheck.check(platform, name, ports))
        }
        return keeper === undefined
          ? runningOf(platform, yield* platform.launch(prepared, options), () => false)
          : keptOf(platform, yield* keeper.launch(prepared, options), keeper)
      })
  }
}
