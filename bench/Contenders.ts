/**
 * The libraries under comparison behind one small interface, so that each question is asked of all of them in the same
 * words. Each is used as its documentation tells: no process groups by hand where the library does not offer them.
 */
import { NodeServices } from "@effect/platform-node"
import { ProcessPlatform, ShutdownPlan, Spawner } from "@treeline/core"
import { PosixPlatform } from "@treeline/platform-posix"
import { Effect, Exit, Layer, ManagedRuntime, Scope, Stream } from "effect"
import { ChildProcess, type ChildProcessSpawner } from "effect/process"
import { execa } from "execa"
import * as child_process from "node:child_process"
import { once } from "node:events"

/** Trees that are ended together. */
export interface Group {
  /** Starts a tree without pipes; returns when it runs, with the pid of its leader. */
  readonly launch: (command: string, args: ReadonlyArray<string>) => Promise<number>
  /** Ends all trees as the library does it, and returns when the library says that it is done. */
  readonly close: () => Promise<void>
}

export interface Contender {
  readonly name: string
  /** `grace` ms from SIGTERM to SIGKILL. */
  readonly open: (grace: number) => Promise<Group>
  /** Starts a command with piped output, reads all of it, and waits for the end; `started` is called once it runs. */
  readonly run: (command: string, args: ReadonlyArray<string>, started: () => void) => Promise<void>
  /** Starts a command with stdout piped, gives each chunk of it to `onChunk` in its own way, and waits for the end. */
  readonly read: (command: string, args: ReadonlyArray<string>, onChunk: OnChunk) => Promise<void>
  readonly dispose: () => Promise<void>
}

export type OnChunk = (chunk: Uint8Array) => void

/** Descriptors of a child that is only read. */
const onlyOutput = { stdin: "ignore", stdout: "pipe", stderr: "ignore" } as const

const forEachChunk = <E>(stream: Stream.Stream<Uint8Array, E>, onChunk: OnChunk): Effect.Effect<void, E> =>
  Stream.runForEachArray(stream, (chunks) => Effect.sync(() => chunks.forEach(onChunk)))

const nothing = async (): Promise<void> => {}

/** `child.kill()`, then `exit`; SIGKILL after the grace period, as everybody writes it. */
const node: Contender = {
  name: "child_process",
  open: async (grace) => {
    const children: Array<child_process.ChildProcess> = []
    const end = async (child: child_process.ChildProcess) => {
      const exit = once(child, "exit")
      child.kill("SIGTERM")
      const timer = setTimeout(() => child.kill("SIGKILL"), grace)
      await exit
      clearTimeout(timer)
    }
    return {
      launch: async (command, args) => {
        const child = child_process.spawn(command, args, { stdio: "ignore" })
        children.push(child)
        await once(child, "spawn")
        return child.pid!
      },
      close: async () => void await Promise.all(children.map(end))
    }
  },
  run: async (command, args, started) => {
    const child = child_process.spawn(command, args)
    const close = once(child, "close")
    child.stdout.resume()
    child.stderr.resume()
    await once(child, "spawn")
    started()
    await close
  },
  read: async (command, args, onChunk) => {
    const child = child_process.spawn(command, args, { stdio: ["ignore", "pipe", "ignore"] })
    const close = once(child, "close")
    child.stdout.on("data", onChunk)
    await close
  },
  dispose: nothing
}

const execaContender: Contender = {
  name: "execa",
  open: async (grace) => {
    const start = (command: string, args: ReadonlyArray<string>) =>
      execa(command, args, { stdio: "ignore", forceKillAfterDelay: grace, reject: false })
    const children: Array<ReturnType<typeof start>> = []
    return {
      launch: async (command, args) => {
        const child = start(command, args)
        children.push(child)
        await once(child.nodeChildProcess, "spawn")
        return child.pid!
      },
      close: async () => {
        for (const child of children) child.kill()
        await Promise.all(children)
      }
    }
  },
  run: async (command, args, started) => {
    const child = execa(command, args)
    await once(child.nodeChildProcess, "spawn")
    started()
    await child
  },
  read: async (command, args, onChunk) => {
    const child = execa(command, args, { ...onlyOutput, buffer: false })
    child.stdout.on("data", onChunk)
    await child
  },
  dispose: nothing
}

/** Effect's spawner, of whichever layer. */
const spawner = (
  name: string,
  layer: Layer.Layer<ChildProcessSpawner.ChildProcessSpawner>,
  /** Whether the grace period has to be asked for, because the layer has none by default. */
  explicitGrace: boolean
): Contender => {
  const runtime = ManagedRuntime.make(layer)
  return {
    name,
    open: async (grace) => {
      const scope = Effect.runSync(Scope.make())
      const kill = explicitGrace ? { forceKillAfter: grace } : {}
      const none = { stdin: "ignore", stdout: "ignore", stderr: "ignore" } as const
      return {
        launch: (command, args) =>
          runtime.runPromise(
            ChildProcess.make(command, args, { ...none, ...kill }).pipe(
              Effect.map((handle) => handle.pid),
              Scope.provide(scope)
            )
          ),
        close: () => runtime.runPromise(Scope.close(scope, Exit.void))
      }
    },
    run: (command, args, started) =>
      runtime.runPromise(
        Effect.gen(function*() {
          const handle = yield* ChildProcess.make(command, args)
          started()
          yield* Effect.all([Stream.runDrain(handle.all), handle.exitCode], { concurrency: 2 })
        }).pipe(Effect.scoped)
      ),
    read: (command, args, onChunk) =>
      runtime.runPromise(
        Effect.gen(function*() {
          const handle = yield* ChildProcess.make(command, args, onlyOutput)
          yield* forEachChunk(handle.stdout, onChunk)
          yield* handle.exitCode
        }).pipe(Effect.scoped)
      ),
    dispose: () => runtime.dispose()
  }
}

/** `platform.launch`. */
const launcher = (): Contender => {
  const runtime = ManagedRuntime.make(PosixPlatform.layer)
  return {
    name: "Treeline launch",
    open: async (grace) => {
      const scope = Effect.runSync(Scope.make())
      const shutdown = ShutdownPlan.terminate({ within: grace })
      const none = { stdin: "ignore", stdout: "ignore", stderr: "ignore" } as const
      return {
        launch: (command, args) =>
          runtime.runPromise(
            ProcessPlatform.ProcessPlatform.use((platform) =>
              platform.launch(ChildProcess.make(command, args, none), { shutdown })
            ).pipe(Effect.map((tree) => tree.pid), Scope.provide(scope))
          ),
        close: () => runtime.runPromise(Scope.close(scope, Exit.void))
      }
    },
    run: (command, args, started) =>
      runtime.runPromise(
        Effect.gen(function*() {
          const platform = yield* ProcessPlatform.ProcessPlatform
          const tree = yield* platform.launch(ChildProcess.make(command, args))
          started()
          yield* Effect.all([tree.exited, tree.drained], { concurrency: 2 })
        }).pipe(Effect.scoped)
      ),
    read: (command, args, onChunk) =>
      runtime.runPromise(
        Effect.gen(function*() {
          const platform = yield* ProcessPlatform.ProcessPlatform
          const tree = yield* platform.launch(ChildProcess.make(command, args, onlyOutput))
          yield* forEachChunk(tree.stdout.stream, onChunk)
          yield* tree.exited
        }).pipe(Effect.scoped)
      ),
    dispose: () => runtime.dispose()
  }
}

/** Effect's own layer. */
export const effectLayer = (): Contender => spawner("Effect's layer", NodeServices.layer, true)

/** Treeline, in both ways. */
export const treeline = (): ReadonlyArray<Contender> => [
  launcher(),
  spawner("Treeline drop-in", Spawner.layer.pipe(Layer.provide(PosixPlatform.layer)), true)
]

/** All, in the order of the tables. */
export const all = (): ReadonlyArray<Contender> => [node, execaContender, effectLayer(), ...treeline()]
