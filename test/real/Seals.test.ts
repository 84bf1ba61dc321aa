/** Control groups as seals, where they are hard to get or left behind. Each test has a group of its own and removes it. */
import { assert, describe, it, layer } from "@effect/vitest"
import { ProcessPlatform, ShutdownPlan } from "@treeline/core"
import { PosixPlatform } from "@treeline/platform-posix"
import { HostGroup } from "@treeline/platform-posix/linux/Cgroup"
import * as Effect from "effect/Effect"
import { ChildProcess } from "effect/process"
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

const whyNot = (): string | undefined => {
  if (!Host.isNative) return "the portable engine has no seal"
  if (mount === undefined) return "cgroup v2 is not mounted"
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
        assert.deepStrictEqual(groupsIn(closed).length, 2)
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

    layer(PosixPlatform.layerWith({ seal: "cgroup" }), { excludeTestServices: true })((it) => {
      it.effect("a launch whose process does not get into its group is refused, and nothing runs", () =>
        Effect.gen(function*() {
          const platform = yield* ProcessPlatform.ProcessPlatform
          const scratch = yield* Scratch.make
          const launch = (role: string) => {
            const [file, ...args] = Host.treeCommand(role, scratch)
            return platform.launch(ChildProcess.make(file!, args, quiet), { require: "sealed", shutdown: soon })
          }
          const before = fs.readdirSync("/proc/self/fd").length
          const group = yield* Effect.scoped(Effect.gen(function*() {
            const tree = yield* launch("plain")
            yield* scratch.awaitReported(1)
            const inside = fs.readFileSync(`/proc/${tree.pid}/cgroup`, "utf8")
            return path.dirname(path.join(mount!, /^0::(.*)$/m.exec(inside)![1]!))
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
          assert.deepStrictEqual(groupsIn(group), [group])
        }))
    })
  }
)
