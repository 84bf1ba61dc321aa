/**
 * A pid namespace per tree (pid_namespaces(7)): when its init ends, the kernel kills everything inside. It seals a tree
 * where no control group can be made, unprivileged where user namespaces are allowed (user_namespaces(7)).
 *
 * `unshare` of util-linux makes it and is the leader of the tree; a small shell is the init, because a program that is
 * init itself would not be ended by SIGTERM. So a death by signal is seen as the shell reports it, 128 + number, and what
 * the program leaves behind ends with it.
 *
 * /proc stays the one of the machine. One of its own would need a mount namespace too, in which nothing that the program
 * mounts is seen outside, and a millisecond more.
 */
import type { Limits } from "@treeline/core/Limits"
import * as child_process from "node:child_process"
import type { Program } from "../internal/Launcher.ts"
import { type Seal, type Sealer, SealProblem } from "../internal/Seal.ts"

/** Runs the program, waits for it, and passes its status on; orphans end with the shell. */
const init = "\"$@\"; exit $?"

const unshare = "/usr/bin/unshare"
const shared = ["--pid", "--fork", "--kill-child", "--"]

/** The arguments that make a namespace for this user: root needs no user namespace around it. */
const variants: ReadonlyArray<ReadonlyArray<string>> = [shared, ["--user", "--map-current-user", ...shared]]

const works = (args: ReadonlyArray<string>): boolean =>
  child_process.spawnSync(unshare, [...args, "/bin/sh", "-c", init, "sh", "/bin/true"], {
    stdio: "ignore",
    timeout: 5000
  })
    .status === 0

const sealOf = (args: ReadonlyArray<string>): Seal => ({
  wrap: (program: Program) => ({
    ...program,
    name: unshare,
    file: unshare,
    args: [...args, "/bin/sh", "-c", init, "sh", program.name, ...program.args]
  }),
  // The members are found as in every tree; the kernel ends with the leader what is not.
  pids: () => [],
  populated: () => false,
  kill: () => {},
  usage: () => ({ memory: undefined, cpu: undefined }),
  remove: () => {}
})

/** The sealer, or why namespaces can't be made here. */
export const make = (): Sealer | SealProblem => {
  const args = variants.find(works)
  if (args === undefined) {
    return new SealProblem("pid namespaces can't be made: no unshare(1), or user namespaces are not allowed")
  }
  return {
    name: args === shared ? "pid namespace" : "pid namespace in a user namespace",
    folder: undefined,
    seal: (_tree: number, limits: Limits) =>
      Object.values(limits).some((limit) => limit !== undefined)
        ? new SealProblem("limits need cgroup v2; a pid namespace has none")
        : sealOf(args),
    remove: () => Promise.resolve()
  }
}
