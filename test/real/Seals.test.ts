/** Control groups as seals, where they are hard to get or left behind. Each test has a group of its own and removes it. */
import { assert, describe, it, layer } from "@effect/vitest"
import { ProcessPlatform, ShutdownPlan } from "@treeline/core"
import { PosixPlatform } from "@treeline/platform-posix"
import { HostGroup } from "@treeline/platform-posix/linux/Cgroup"
import { removeGroups } from "@treeline/platform-posix/linux/ControlGroups"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import { ChildProcess } from "effect/process"
import * as Scope from "effect/Scope"
import * as child_process from "node:child_process"
import * as fs from "node:fs"
import * as path from "node:path"
import { eventually } from "../support/Eventually.ts"
import * as Host from "../support/Host.ts"
import { identify } from "../support/Processes.ts"
import * as Scratch from "../support/Scratch.ts"

const mount = /^\S+ \S+ \S+ \S+ (\S+) .* - cgroup2 /m.exec(
  process.platform === "linux" ? fs.readFileSync("/proc/self/mountinfo", "utf8") : ""
)?.[1]

const host = { pid: process.pid, start: Number(identify(process.pid)?.start ?? 0) }
const soon = ShutdownPlan.terminate({ within: 300 })
const sealed = { require: "sealed", shutdown: soon } as const
const quiet = { stdin: "ignore", stdout: "ignore", stderr: "ignore" } as const

/** A group and those inside it, the innermost first. */
const groupsIn = (folder: string): ReadonlyArray<string> => [
  ...fs.readdirSync(folder, { withFileTypes: true }).flatMap((entry) =>
    entry.isDirectory() ? groupsIn(path.join(folder, entry.name)) : []
  ),
  folder
]

let groups = 0

/** A group for one test; what is left in it is killed. */
const testGroup = Effect.acquireRelease(
  Effect.sync(() => {
    const folder = path.join(mount!, `treeline-test-${process.pid}-${++groups}`)
    fs.mkdirSync(folder)
    return folder
  }),
  (folder) =>
    Effect.gen(function*() {
      fs.writeFileSync(path.join(folder, "cgroup.kill"), "1")
      yield* eventually("nobody is in the group", () => !isPopulated(folder))
      for (const group of groupsIn(folder)) fs.rmdirSync(group)
    })
)

const isPopulated = (group: string): boolean =>
  fs.readFileSync(path.join(group, "cgroup.events"), "utf8").includes("populated 1")

/** A process in a group, which ends with it. */
const sleepIn = (group: string): void => {
  fs.mkdirSync(group, { recursive: true })
  const { pid } = child_process.spawn("sleep", ["60"], { stdio: "ignore" })
  fs.writeFileSync(path.join(group, "cgroup.procs"), String(pid))
}

/** From now on no process can be moved into a group that is made in this one (cgroup-v2.rst, "domain invalid"). */
const closeToProcesses = (group: string): void => {
  fs.mkdirSync(path.join(group, "threads"))
  fs.writeFileSync(path.join(group, "threads", "cgroup.type"), "threaded")
}

/** The group that a process is in. */
const groupOf = (pid: number): string =>
  path.join(mount!, /^0::(.*)$/m.exec(fs.readFileSync(`/proc/${pid}/cgroup`, "utf8"))![1]!)

/** A leader that ends when a member has shed tag, mark, session and parents and has moved into a group of its own making. */
const hides = (scratch: Scratch.Scratch, more = ":") => {
  const script = `group=${mount}$(sed -n 's/^0:://p' /proc/self/cgroup)/inner; mkdir "$group"; ${more}
    (env -i PATH="$PATH" setsid prlimit --locks=unlimited sh -c \
      'echo 0 >"$1/cgroup.procs" && echo "inner $$" >>"$2"; exec sleep 60' sh "$group" "${scratch.report}" &)
    until grep -q inner "${scratch.report}"; do sleep 0.01; done`
  return ChildProcess.make("/bin/sh", ["-c", script], quiet)
}

const whyNot = (): string | undefined => {
  if (!Host.isNative) return "the portable engine has no seal"
  if (mount === undefined) return "cgroup v2 is not mounted"
  if (child_process.spawnSync("prlimit", ["--version"]).status !== 0) return "prlimit(1) is missing"
  const group = path.join(mount, `treeline-test-${process.pid}`)
  try {
    fs.mkdirSync(group)
    const canKill = fs.existsSync(path.join(group, "cgroup.kill"))
    fs.rmdirSync(group)
    return canKill ? undefined : "the kernel has no cgroup.kill"
  } catch {
    return "no cgroup v2 group can be made"
  }
}

const problem = whyNot()

/** What this module says of /proc as the first process of a pid namespace. */
const isProcAvailable = (...args: ReadonlyArray<string>) => {
  const table = new URL("../../packages/platform-posix/src/internal/ProcTable.ts", import.meta.url)
  const script = `import(${JSON.stringify(table)}).then(({ isAvailable }) => console.log(isAvailable()))`
  return child_process.spawnSync("unshare", [...args, process.execPath, "--conditions=source", "-e", script], {
    encoding: "utf8"
  })
}

const canMountProc = process.platform === "linux" &&
  child_process.spawnSync("unshare", ["--pid", "--fork", "--mount-proc", "true"]).status === 0

describe.runIf(canMountProc)("the process table in a pid namespace (on Linux, where one can be made)", () => {
  it("the /proc of another namespace is none, because its numbers are other processes' numbers", () => {
    assert.strictEqual(isProcAvailable("--pid", "--fork").stdout, "false\n")
    assert.strictEqual(isProcAvailable("--pid", "--fork", "--mount-proc").stdout, "true\n")
  })
})

describe.skipIf(problem !== undefined)(
  `control groups${problem === undefined ? "" : ` (not here: ${problem})`}`,
  () => {
    const made = (parents: ReadonlyArray<string>): HostGroup => {
      const group = HostGroup.makeIn(parents, host, 900)
      return group instanceof HostGroup ? group : assert.fail(group.detail)
    }

    it.live("a place that lets groups be made and no process join is no place for a seal", () =>
      Effect.gen(function*() {
        const closed = yield* testGroup
        closeToProcesses(closed)
        const open = yield* testGroup
        const refused = HostGroup.makeIn([closed], host, 900)
        assert.match(JSON.stringify(refused), /a process can't be moved into/)
        yield* eventually("what was tried is removed", () => groupsIn(closed).length === 2)
        assert.strictEqual(path.dirname(made([closed, open]).folder), open)
      }))

    it.live("a program whose group has gone is not run", () =>
      Effect.gen(function*() {
        const group = made([yield* testGroup])
        const seal = group.seal(1, {})
        if (!("wrap" in seal)) return assert.fail(seal.detail)
        seal.remove()
        const { args, file } = seal.wrap({
          name: "echo",
          file: "/bin/echo",
          args: ["ran"],
          env: { inherits: true, changes: {} },
          cwd: undefined,
          stdio: [],
          ownSession: false,
          tag: undefined
        })
        const { status, stdout } = child_process.spawnSync(file, args, { encoding: "utf8" })
        assert.deepStrictEqual({ status, stdout }, { status: 126, stdout: "" })
      }))

    it.live("a host of another pid namespace, which can't be seen from here, keeps its groups and what lives in them", () =>
      Effect.gen(function*() {
        const parent = yield* testGroup
        const own = path.basename(made([parent]).folder).split("-")
        assert.include(fs.readlinkSync("/proc/self/ns/pid"), `[${own[1]}]`)
        const tree = path.join(parent, "treeline-1-999999999-1-0", "7")
        sleepIn(tree)
        // One that its host is just about to launch into.
        const next = path.join(path.dirname(tree), "8")
        fs.mkdirSync(next)
        HostGroup.makeIn([parent], host, 901)
        assert.isTrue(isPopulated(tree))
        assert.isTrue(fs.existsSync(next))
      }))

    it.live("of a dead host the empty groups are removed; who lives there may have been released, and is left alone", () =>
      Effect.gen(function*() {
        const parent = yield* testGroup
        const [, namespace] = path.basename(made([parent]).folder).split("-")
        const nameOf = (pid: number) => path.join(parent, `treeline-${namespace}-${pid}-1-0`)
        const tree = path.join(nameOf(999_999_999), "7")
        sleepIn(tree)
        fs.mkdirSync(path.join(nameOf(999_999_999), "8"))
        fs.mkdirSync(path.join(nameOf(999_999_998), "1"), { recursive: true })
        HostGroup.makeIn([parent], host, 901)
        assert.isTrue(isPopulated(tree))
        assert.isFalse(fs.existsSync(path.join(nameOf(999_999_999), "8")))
        assert.isFalse(fs.existsSync(nameOf(999_999_998)))
      }))

    it.live("giving groups back never blocks: one with an inner group goes when nobody lives there, the host's with the last", () =>
      Effect.gen(function*() {
        const group = made([yield* testGroup])
        const [idle, dying, living] = [group.seal(1, {}), group.seal(2, {}), group.seal(3, {})]
        if (!("folder" in idle && "folder" in dying && "folder" in living)) return assert.fail("no group")
        fs.mkdirSync(path.join(idle.folder, "inner", "most"), { recursive: true })
        for (const { folder } of [dying, living]) sleepIn(path.join(folder, "inner"))
        const startedAt = performance.now()
        idle.remove()
        dying.remove()
        const removed = group.remove()
        assert.isBelow(performance.now() - startedAt, 50)
        dying.kill()
        yield* Effect.promise(() => removed)
        // A tree may outlive its platform.
        assert.deepStrictEqual(fs.readdirSync(group.folder).filter((name) => /^\d+$/.test(name)), ["3"])
        assert.isTrue(isPopulated(living.folder))
        living.kill()
        living.remove()
        yield* eventually("the group of the host is gone", () => !fs.existsSync(group.folder))
      }))

    it.live("the sweeper removes inner groups, and leaves a released tree and its empty inner group alone", () =>
      Effect.gen(function*() {
        const parent = yield* testGroup
        for (const tree of ["1", "2"]) {
          sleepIn(path.join(parent, tree, "inner"))
          fs.mkdirSync(path.join(parent, tree, "bare"))
        }
        removeGroups(parent, (tree) => tree === 1)
        assert.isFalse(fs.existsSync(path.join(parent, "1")))
        assert.isTrue(isPopulated(path.join(parent, "2")))
        assert.isTrue(fs.existsSync(path.join(parent, "2", "bare")))
      }))

    layer(PosixPlatform.layerWith({ seal: "cgroup" }), { excludeTestServices: true })((it) => {
      for (const ends of ["by its shutdown", "with its scope", "by a kill"] as const) {
        it.effect(`a member that has shed all and moved into an inner group is seen when the leader has ended, and ends ${ends}`, () =>
          Effect.gen(function*() {
            const platform = yield* ProcessPlatform.ProcessPlatform
            const scratch = yield* Scratch.make
            const scope = yield* Scope.make()
            const tree = yield* Scope.provide(platform.launch(hides(scratch), sealed), scope)
            yield* tree.exited
            const [inner] = yield* scratch.awaitReported(1)
            const group = groupOf(inner!.pid)
            assert.deepStrictEqual((yield* tree.members).map(({ pid }) => pid), [inner!.pid])
            if (ends === "by its shutdown") assert.deepStrictEqual(yield* tree.shutdown(), [])
            if (ends === "by a kill") assert.deepStrictEqual(yield* tree.shutdown(ShutdownPlan.kill), [])
            yield* Scope.close(scope, Exit.void)
            assert.deepStrictEqual(scratch.living(), [])
            yield* eventually("its groups are gone", () => !fs.existsSync(path.dirname(group)))
          }))
      }

      it.effect("a member hidden behind more groups than are looked at is not overlooked, and ends all the same", () =>
        Effect.gen(function*() {
          const platform = yield* ProcessPlatform.ProcessPlatform
          const scratch = yield* Scratch.make
          const scope = yield* Scope.make()
          const more = "seq -f \"$group/%g\" 300 | xargs mkdir"
          const tree = yield* Scope.provide(platform.launch(hides(scratch, more), sealed), scope)
          yield* tree.exited
          const [inner] = yield* scratch.awaitReported(1)
          const group = groupOf(inner!.pid)
          assert.strictEqual((yield* tree.members).length, 1)
          yield* Scope.close(scope, Exit.void)
          assert.deepStrictEqual(scratch.living(), [])
          yield* eventually("its groups are gone", () => !fs.existsSync(path.dirname(group)))
        }))

      it.effect("a launch whose process does not get into its group is refused, and nothing runs", () =>
        Effect.gen(function*() {
          const platform = yield* ProcessPlatform.ProcessPlatform
          const scratch = yield* Scratch.make
          const launch = (role: string) => {
            const [file, ...args] = Host.treeCommand(role, scratch)
            return platform.launch(ChildProcess.make(file!, args, quiet), sealed)
          }
          const before = fs.readdirSync("/proc/self/fd").length
          const group = yield* Effect.scoped(Effect.gen(function*() {
            const tree = yield* launch("plain")
            yield* scratch.awaitReported(1)
            return path.dirname(groupOf(tree.pid))
          }))
          yield* Effect.acquireUseRelease(
            Effect.sync(() => closeToProcesses(group)),
            () =>
              Effect.gen(function*() {
                for (let again = 0; again < 3; again++) {
                  const error = yield* Effect.flip(Effect.scoped(launch("plain")))
                  assert.strictEqual(error._tag, "ContainmentUnavailable")
                  assert.match(error.message, /could not be moved into its control group/)
                }
                assert.strictEqual(scratch.reported().length, 1)
              }),
            () => Effect.sync(() => fs.rmdirSync(path.join(group, "threads")))
          )
          yield* eventually("no descriptor is left open", () => fs.readdirSync("/proc/self/fd").length <= before + 2)
          yield* eventually("no group of a tree is left", () => groupsIn(group).length === 1)
        }))
    })
  }
)
