/** Starts programs through Node's child_process. */
import type { LaunchRequest, Pipe } from "@treeline/core/Engine"
import * as ExitStatus from "@treeline/core/ExitStatus"
import * as NodePipes from "@treeline/platform-node/NodePipes"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as child_process from "node:child_process"
import type { Socket } from "node:net"
import * as Environment from "./Environment.ts"
import * as Executable from "./Executable.ts"
import type { Launched, Launcher, LaunchProblem } from "./Launcher.ts"
import type { Tagger } from "./Tagging.ts"

const launched = (child: child_process.ChildProcess, pid: number, stdio: LaunchRequest["stdio"]): Launched => {
  child.on("error", () => {}) // a failed kill or message; the outcome is read elsewhere
  const pipes = new Map<number, Pipe>()
  const sockets: Array<Socket> = []
  for (const [fd, descriptor] of stdio.entries()) {
    const socket = child.stdio[fd] as Socket | null | undefined
    if (descriptor._tag !== "pipe" || socket === null || socket === undefined) continue
    const { direction } = descriptor
    // A duplex descriptor stays writable after the child has closed its side.
    if (direction === "duplex") socket.allowHalfOpen = true
    sockets.push(socket)
    pipes.set(fd, {
      reader: direction === "write" ? undefined : NodePipes.reader(socket, fd),
      writer: direction === "read" ? undefined : NodePipes.writerOf(socket, fd)
    })
  }
  return {
    pid,
    pipes,
    onExit: (listener) =>
      void child.once("exit", (code, signal) =>
        listener(
          code !== null ? ExitStatus.exited(code) : signal !== null ? ExitStatus.signaled(signal) : ExitStatus.unknown,
          false
        )),
    setReferenced: (referenced) => {
      const change = referenced ? "ref" : "unref"
      child[change]()
      for (const socket of sockets) socket[change]()
    },
    reap: () => {} // Node has done it
  }
}

/** `tagger` sets the tag; without one there is none. */
export const make = (tagger: Tagger | undefined): Launcher => ({
  name: "Node's child_process",
  tagging: tagger?.name,
  // The tagger is what Node starts, so its errors would be the tagger's.
  find: Executable.resolve,
  launch: (program) => {
    const { args, cwd, name, ownSession, stdio, tag } = program
    const env = Environment.toRecord(program.env)
    const command = tagger === undefined || tag === undefined
      ? { file: name, args }
      : tagger.wrap(tag, name, args, env)
    let child: child_process.ChildProcess
    try {
      child = child_process.spawn(command.file, command.args, {
        cwd,
        env,
        detached: ownSession,
        stdio: stdio.map((descriptor) => descriptor._tag)
      })
    } catch (error) {
      return Effect.fail({ code: (error as NodeJS.ErrnoException).code })
    }
    if (child.pid !== undefined) return launched(child, child.pid, stdio)
    // Listened for at once: the error is told with the end of this turn.
    const problem = Deferred.makeUnsafe<never, LaunchProblem>()
    child.once("error", ({ code }: NodeJS.ErrnoException) => Deferred.doneUnsafe(problem, Effect.fail({ code })))
    return Deferred.await(problem)
  }
})
