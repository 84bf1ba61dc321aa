import {
  type Containment,
  type Errors,
  ExitStatus,
  type ProcessPlatform,
  type ProcessTree,
  ShutdownPlan,
  Spawner
} from "@treeline/core"
import { PosixPlatform } from "@treeline/platform-posix"
import type { Effect, Layer, Scope } from "effect"
import { ChildProcess, type ChildProcessSpawner } from "effect/process"
import { describe, expect, test } from "tstyche"

describe("ProcessPlatform", () => {
  test("launch is scoped and its errors are listed", () => {
    type Launch = ProcessPlatform.ProcessPlatform["Service"]["launch"]
    expect<ReturnType<Launch>>().type.toBe<
      Effect.Effect<
        ProcessTree.ProcessTree,
        Errors.LaunchError | Errors.ContainmentUnavailable | Errors.InvalidSpec,
        Scope.Scope
      >
    >()
  })

  test("a pipeline is no single process", () => {
    type Command = Parameters<ProcessPlatform.ProcessPlatform["Service"]["launch"]>[0]
    expect<Command>().type.toBeAssignableFrom(ChildProcess.make("a", []))
    expect<Command>().type.not.toBeAssignableFrom(
      ChildProcess.make("a", []).pipe(ChildProcess.pipeTo(ChildProcess.make("b", [])))
    )
  })

  test("the platform needs nothing and the spawner needs a platform", () => {
    expect(PosixPlatform.layer).type.toBe<Layer.Layer<ProcessPlatform.ProcessPlatform>>()
    expect(Spawner.layer).type.toBe<
      Layer.Layer<ChildProcessSpawner.ChildProcessSpawner, never, ProcessPlatform.ProcessPlatform>
    >()
  })
})

describe("values", () => {
  test("a level is one of four", () => {
    expect<Containment.Level>().type.toBe<"group" | "marked" | "tagged" | "sealed">()
  })

  test("an exit status is folded by all of its cases", () => {
    expect(ExitStatus.match).type.not.toBeCallableWith(ExitStatus.unknown, { Exited: () => 1 })
  })

  test("a plan is made of known signals", () => {
    expect(ShutdownPlan.signal).type.toBeCallableWith("SIGTERM", { target: "group", within: "1 second" })
    expect(ShutdownPlan.signal).type.not.toBeCallableWith("SIGNOTHING")
    expect(ShutdownPlan.signal).type.not.toBeCallableWith("SIGTERM", { target: "everybody" })
  })
})
