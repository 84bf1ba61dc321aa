/** The programs of the conformance suite, as data. */
import * as ChildProcess from "effect/process/ChildProcess"
import type * as Conformance from "../Conformance.ts"
import * as Program from "../Program.ts"
import { command } from "./command.ts"

const simulated = (...program: Program.Program) => command(program)

/** From here on what asks for the end is ignored. */
const deaf = Program.ignore("SIGTERM", "SIGINT", "SIGHUP")

/** As `</dev/null >/dev/null 2>&1`. */
const closeAll = [Program.close(0), Program.close(1), Program.close(2)]

/** Reports, and lives on. */
const report = [Program.print("pids {pid}\n"), Program.endure]
const reportAsChild = [Program.print("pids {leader} {pid}\n"), ...closeAll, Program.endure]

export const programs: Conformance.Programs = {
  echo: (text) => simulated(Program.write(text)),
  echoBoth: (out, error) => simulated(Program.write(out), Program.write(error, 2)),
  cat: simulated(Program.copy()),
  exit: (code) => simulated(Program.exit(code)),
  signalSelf: (signal) => simulated(Program.raise(signal), Program.endure),
  sleeper: simulated(...report),
  polite: (code) => simulated(Program.trap("SIGTERM", [Program.write("ended\n"), Program.exit(code)]), ...report),
  stubborn: simulated(deaf, ...report),
  endsWithInput: simulated(deaf, Program.print("pids {pid}\n"), Program.readToEnd()),
  generations: simulated(
    Program.fork(
      Program.fork(Program.endure),
      Program.print("pids {leader} {pid} {child}\n"),
      Program.waitChildren
    ),
    Program.waitChildren
  ),
  stubbornChild: simulated(
    Program.fork(deaf, Program.print("pids {leader} {pid}\n"), Program.endure),
    Program.waitChildren
  ),
  leavesChild: (code) =>
    simulated(Program.fork(...closeAll, Program.endure), Program.print("pids {pid} {child}\n"), Program.exit(code)),
  leavesWriter: (text) =>
    simulated(Program.fork(Program.endure), Program.print("pids {pid} {child}\n"), Program.write(`${text}\n`)),
  escapes: (how) => {
    switch (how) {
      case "group":
        return simulated(Program.fork(Program.setpgid, ...reportAsChild), Program.waitChildren)
      case "session":
        return simulated(Program.fork(Program.setsid, ...reportAsChild), Program.waitChildren)
      case "daemon":
        return simulated(Program.daemonise(...reportAsChild), Program.endure)
    }
  },
  writes: (bytes) => simulated(Program.writeBytes(bytes)),
  floods: simulated(Program.loop("forever", Program.write("y\n".repeat(512)))),
  copies: (from, to) => simulated(Program.copy(from, to)),
  variable: (name) => simulated(Program.print(`{env:${name}}`)),
  directory: simulated(Program.print("{cwd}\n")),
  shell: undefined,
  missing: ChildProcess.make("no-such-program")
}
