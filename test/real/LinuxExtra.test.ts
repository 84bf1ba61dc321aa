/**
 * Trees that go further than the matrix to get away, or that are many, each in a host process of its own. What the tree's
 * processes report is one witness that nothing is left, the kernel is the other, by a reaper that all orphans come to.
 */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import * as child_process from "node:child_process"
import * as fs from "node:fs"
import type { HostSpec } from "../fixtures/hostSpec.ts"
import { eventually, stays } from "../support/Eventually.ts"
import * as Host from "../support/Host.ts"
import { killIfAlive } from "../support/Processes.ts"
import { program } from "../support/Programs.ts"
import * as Random from "../support/Random.ts"
import * as Scratch from "../support/Scratch.ts"
import { nodeLeavesSomething, role, type Shape } from "../support/Trees.ts"

/** A role of daemons.pl. */
const perl = (name: string, reports: number, count = 0): Shape => ({
  command: (scratch) => ["perl", Host.fixture("daemons.pl"), name, scratch.report, String(count)],
  reports
})

interface User {
  readonly id: number
  readonly suffix: string
  readonly whyNot: string | undefined
}

const self: User = { id: process.getuid?.() ?? 0, suffix: "", whyNot: undefined }
const nobody: User = {
  id: Host.unprivileged,
  suffix: `, as uid ${Host.unprivileged}`,
  whyNot: Host.whyNotUnprivileged()
}
// Another user and child_process are the same on either engine, so one run of them is enough.
const users = Host.isNative ? [self, nobody] : [self]

const succeeds = (program: string, ...args: ReadonlyArray<string>): boolean =>
  child_process.spawnSync(program, args, { stdio: "ignore", timeout: 5000 }).status === 0

const whyNoNamespace = (user: User): string | undefined =>
  user.whyNot ?? (self.id === 0 && user === self
    ? (succeeds("unshare", "--pid", "--fork", "true") ? undefined : "unshare(1) can make no pid namespace")
    : "only root can make a pid namespace without a user namespace")

const whyNoUserNamespace = (user: User): string | undefined => {
  if (user.whyNot !== undefined) return user.whyNot
  const make = ["unshare", "--user", "--map-root-user", "--pid", "--fork", "true"]
  const as = user === self ? [] : ["setpriv", "--reuid", String(user.id), "--regid", String(user.id), "--clear-groups"]
  const [program, ...args] = [...as, ...make]
  return succeeds(program!, ...args) ? undefined : "user namespaces are not allowed"
}

/** Why perl is no way to overwrite the environment here. */
const whyNoTitle = (): string | undefined => {
  const script = "$0 = 'r' x 20000; open(my $in, '<', \"/proc/$$/environ\"); print <$in>"
  const seen = child_process.spawnSync("perl", ["-e", script], { encoding: "utf8", env: { MARK: "seen" } })
  return seen.stdout.includes("MARK=seen") ? "this perl leaves the environment as it is" : undefined
}

/** Why su(1) is no way to lose the tag here. */
const whyNoSu = (): string | undefined => {
  if (self.id !== 0) return "only root can be another user by su without a password"
  const script = "grep 'Max file locks' /proc/self/limits"
  const su = child_process.spawnSync("prlimit", ["--locks=12345:", "su", "nobody", "-s", "/bin/sh", "-c", script], {
    encoding: "utf8",
    timeout: 5000
  })
  if (su.error !== undefined || su.status !== 0) return "su(1) or prlimit(1) is missing or refuses"
  return su.stdout.includes(" 12345 ") ? "su(1) leaves limits as they are here" : nobody.whyNot
}

type SealName = NonNullable<HostSpec["seal"]>

/** Why a user can't have such a seal, by the system's word and not the engine's. */
const whyNoSeal = (user: User, seal: SealName): string | undefined => {
  if (!Host.isNative) return "the portable engine has no seal"
  if (seal === "pid-namespace") return user.id === 0 ? whyNoNamespace(user) : whyNoUserNamespace(user)
  const mount = /^\S+ \S+ \S+ \S+ (\S+) .* - cgroup2 /m.exec(fs.readFileSync("/proc/self/mountinfo", "utf8"))?.[1]
  const group = `${mount}/treeline-test-${process.pid}`
  try {
    fs.mkdirSync(group)
    const canKill = fs.existsSync(`${group}/cgroup.kill`)
    fs.rmdirSync(group)
    return canKill ? undefined : "the kernel has no cgroup.kill"
  } catch {
    return "no cgroup v2 group can be made"
  }
}

/** A test that runs where nothing speaks against it; otherwise its name says what does. */
const test = (
  name: string,
  whyNot: string | undefined,
  body: () => Effect.Effect<void, never, Scope.Scope>,
  timeout?: number
) =>
  whyNot === undefined
    ? it.live(name, body, timeout)
    : it.live.skip(`${name} (not here: ${whyNot})`, () => Effect.void)

interface Running {
  readonly host: Host.Host
  readonly scratch: Scratch.Scratch
  readonly reported: ReadonlyArray<Scratch.Reported>
}

/** Starts a host whose trees have all reported themselves. */
const start = Effect.fn(function*(shape: Shape, user: User, spec: Partial<HostSpec> = {}) {
  const scratch = yield* Scratch.make
  const host = yield* Host.start({
    on: "treeline",
    user: user.id,
    scratch,
    spec: { command: shape.command(scratch), ...spec }
  })
  const reported = yield* scratch.awaitReported(shape.reports * (spec.trees ?? 1))
  return { host, scratch, reported } satisfies Running
})

/** Closes the trees of a host; returns how long that took, in ms, and what it has left. */
const close = Effect.fn(function*({ host, scratch }: Running) {
  const startedAt = performance.now()
  host.order("close")
  const survivors = yield* host.awaitLine("closed")
  const took = performance.now() - startedAt
  assert.strictEqual(survivors, "")
  assert.isTrue(host.isAlive())
  return { took, left: scratch.living() }
})

/** The close leaves nothing, by either witness. */
const closesClean = Effect.fn(function*(running: Running) {
  const { left, took } = yield* close(running)
  assert.deepStrictEqual(left, [])
  running.host.order("finish")
  yield* running.host.awaitDead
  // A host that finishes by itself dismisses its guardian, so what its close has missed would be seen now.
  yield* running.host.awaitNoDescendants()
  assert.deepStrictEqual(running.scratch.living(), [])
  return took
})

const named = ({ reported }: Running, name: string): number => reported.find((process) => process.name === name)!.pid

/** Two files of /proc that show what a process has got rid of. */
const environmentOf = (pid: number): string => fs.readFileSync(`/proc/${pid}/environ`, "latin1")
const tagOf = (pid: number): string =>
  /^Max file locks +(\S+)/m.exec(fs.readFileSync(`/proc/${pid}/limits`, "utf8"))![1]!

const hasMark = (pid: number): boolean => environmentOf(pid).includes("TREELINE_TREE=")

const control = (name: string, shape: Shape, whyNot?: string) =>
  Host.isNative &&
  test(`${name}: control: child_process leaves something`, whyNot, () =>
    Effect.gen(function*() {
      yield* nodeLeavesSomething(shape, yield* Scratch.make, "SIGTERM")
    }))

describe.runIf(Host.hasReaper)("further than the matrix (on Linux, with perl)", () => {
  const title1 = "extra 1: double fork, setsid, all descriptors closed, environment cleared"
  const detached = perl("detached", 2)
  for (const user of users) {
    test(`${title1}${user.suffix}`, user.whyNot, () =>
      Effect.gen(function*() {
        const running = yield* start(detached, user)
        const pid = named(running, "bare")
        // It closes them, and then becomes a program without variables.
        yield* eventually(
          "it has no descriptor and no variable",
          () => fs.readdirSync(`/proc/${pid}/fd`).length === 0 && environmentOf(pid) === ""
        )
        yield* closesClean(running)
      }))
  }
  control(title1, detached)

  const title2 = "extra 2: the environment is overwritten, as setproctitle does"
  const retitled = perl("retitled", 2)
  for (const user of users) {
    test(`${title2}${user.suffix}`, user.whyNot ?? whyNoTitle(), () =>
      Effect.gen(function*() {
        const running = yield* start(retitled, user)
        assert.isTrue(hasMark(named(running, "retitled")))
        assert.match(environmentOf(named(running, "title")), /^r+/)
        assert.isFalse(hasMark(named(running, "title")))
        yield* closesClean(running)
      }))
  }
  control(title2, retitled)

  const namespaces = [
    ["pid namespace", role("namespaced", 3), whyNoNamespace],
    ["user and pid namespace", role("user-namespaced", 3), whyNoUserNamespace]
  ] as const
  for (const [kind, shape, whyNot] of namespaces) {
    const title = `extra 3: a daemon in a ${kind} of its own`
    for (const user of users) {
      test(`${title}${user.suffix}`, whyNot(user), () =>
        Effect.gen(function*() {
          const running = yield* start(shape, user)
          const leader = running.reported.find(({ name }) => name.endsWith("namespaced"))!.pid
          const namespaceOf = (pid: number) => fs.readlinkSync(`/proc/${pid}/ns/pid`)
          assert.notStrictEqual(namespaceOf(named(running, "leaf")), namespaceOf(leader))
          assert.isFalse(hasMark(named(running, "middle")))
          yield* closesClean(running)
        }))
    }
    control(title, shape, whyNot(self))
  }

  const noSu = whyNoSu()
  for (const [kind, shape] of [["su", role("su", 3)], ["su and setsid", role("su-session", 3)]] as const) {
    const title = `extra 4: ${kind} to another user, which sets all limits anew`
    test(title, noSu, () =>
      Effect.gen(function*() {
        const running = yield* start(shape, self)
        assert.strictEqual(tagOf(named(running, "middle")), "unlimited")
        assert.isTrue(hasMark(named(running, "middle")))
        yield* closesClean(running)
      }))
    control(title, shape, noSu)
  }

  describe("extra 5: tag, environment, session and parents are all lost", () => {
    const hasPrlimit = succeeds("prlimit", "--version") ? undefined : "prlimit(1) is missing"
    const ways = [
      ["su, env -i and setsid", role("su-cleared", 3), noSu, [self]],
      ["prlimit, env -i and setsid", role("shed", 2), hasPrlimit, users]
    ] as const
    for (const [way, shape, whyNot, users] of ways) {
      for (const user of users) {
        const seals: ReadonlyArray<SealName> = user.id === 0 ? ["cgroup", "pid-namespace"] : ["pid-namespace"]
        for (const seal of seals) {
          const whyNotSealed = whyNot ?? user.whyNot ?? whyNoSeal(user, seal)
          test(
            `${way}: nothing is left of a tree that a ${seal} seals${user.suffix}`,
            whyNotSealed,
            () =>
              Effect.gen(function*() {
                const running = yield* start(shape, user, { require: "sealed", seal })
                assert.match(running.host.lines.join("\n"), /^launched \d+ sealed$/m)
                const lost = running.reported.find(({ name }) => name === "middle" || name === "quiet")!.pid
                assert.isFalse(hasMark(lost))
                assert.strictEqual(tagOf(lost), "unlimited")
                yield* closesClean(running)
              })
          )
        }
      }
    }

    // The other way, prlimit, is among the limits of the engine (Limits.test.ts).
    test("su, env -i and setsid: without a seal just these are left", noSu, () =>
      Effect.gen(function*() {
        const running = yield* start(role("su-cleared", 3), self)
        assert.match(running.host.lines.join("\n"), /^launched \d+ tagged$/m)
        const { left } = yield* close(running)
        assert.deepStrictEqual(left.map(({ name }) => name).sort(), ["leaf", "middle"])
        running.host.order("finish")
        yield* running.host.awaitDead
        yield* stays("they live", () => running.scratch.living().length === 2, 200)
        running.scratch.living().forEach(killIfAlive)
        yield* running.host.awaitNoDescendants()
      }))
  })

  const many = perl("many", 1001, 1000)
  const title6 = "extra 6: 1,000 daemons in sessions of their own under one tree"
  for (const user of users) {
    test(`${title6}${user.suffix}`, user.whyNot, () =>
      Effect.gen(function*() {
        const running = yield* start(many, user, { grace: 10_000 })
        const living = running.scratch.living()
        assert.strictEqual(living.length, 1001)
        // All of them end when they are asked to, so nobody waits for the grace to pass.
        assert.isBelow(yield* closesClean(running), 5000)
      }), 60_000)
  }
  control(title6, perl("many", 101, 100))

  const groups = perl("groups", 7)
  const title7 = "extra 7: 30 trees of daemons without environment, closed in any order"
  for (const user of users) {
    test(`${title7}: just the tree that is closed ends${user.suffix}`, user.whyNot, () =>
      Effect.gen(function*() {
        const trees = 30
        const { host, scratch } = yield* start(groups, user, { trees, separate: true })
        const leaders = host.lines.filter((line) => line.startsWith("launched")).map((line) => line.split(" ")[1])
        assert.strictEqual(leaders.length, trees)
        const order = Random.shuffle(leaders.map((_, number) => number), Random.make())
        const open = new Set(leaders)
        for (const number of order) {
          host.order(`close ${number}`)
          yield* host.awaitLine(`closed-${number} `)
          open.delete(leaders[number])
          const living = scratch.living().map(({ name }) => name)
          const expected = [...open].flatMap((leader) => Array.from({ length: groups.reports }, () => `of-${leader}`))
          assert.deepStrictEqual(living.sort(), expected.sort(), `seed ${Random.seed}, after tree ${number}`)
        }
        host.order("finish")
        yield* host.awaitDead
        yield* host.awaitNoDescendants()
      }), 60_000)
  }
  control(title7, groups)

  for (const [kind, name] of [["in one session", "bomb"], ["in a session each", "session-bomb"]] as const) {
    const title = `extra 8: a fork bomb that doubles up to 1,024 processes, ${kind}`
    const bomb = (reports: number) => perl(name, reports, 10)
    for (const user of users) {
      const stages = user === self ? [1, 200, 1024] : [200]
      test(
        `${title}, closed when there are ${stages.join(", ")}${user.suffix}`,
        user.whyNot,
        () =>
          Effect.forEach(stages, (reports) =>
            Effect.scoped(Effect.gen(function*() {
              yield* closesClean(yield* start(bomb(reports), user))
            })), { discard: true }),
        60_000
      )
    }
    control(title, bomb(64))
  }

  describe("extra 9: a host inside another host's tree", () => {
    /** A host whose tree is a host, which has a tree of its own. */
    const nested = Effect.fn(function*(on: "treeline" | "node", user: User, inner: HostSpec, scratch: Scratch.Scratch) {
      const words = [process.execPath, program("host"), JSON.stringify(inner)]
      // A pipe of its own would break with the outer host, which is another way to die.
      const lines = scratch.file("inner")
      const begin = `echo "inner $$" >>'${scratch.report}'; exec "$@" >'${lines}' 2>&1`
      const host = yield* Host.start({
        on,
        user: user.id,
        scratch,
        spec: { command: ["sh", "-c", begin, "sh", ...words] }
      })
      const reported = yield* scratch.awaitReported(3)
      yield* eventually("the inner host has launched", () => fs.readFileSync(lines, "utf8").includes("launched"))
      return { host, scratch, reported } satisfies Running
    })
    const innerGrace = 6000
    const inners = {
      "that closes its trees": (scratch: Scratch.Scratch): HostSpec => ({
        command: Host.treeCommand("cleared", scratch)
      }),
      // It does nothing for its trees: mark, tag and the inner guardian are what is left.
      "that ignores SIGTERM, as its tree does": (scratch: Scratch.Scratch): HostSpec => ({
        command: Host.treeCommand("stubborn", scratch),
        grace: innerGrace,
        runMain: false,
        ignoresTerm: true
      })
    }
    for (const [name, inner] of Object.entries(inners)) {
      for (const user of users) {
        test(`${name}: the outer host closes the tree${user.suffix}`, user.whyNot, () =>
          Effect.gen(function*() {
            const scratch = yield* Scratch.make
            yield* closesClean(yield* nested("treeline", user, inner(scratch), scratch))
          }))

        test(`${name}: the outer host is killed${user.suffix}`, user.whyNot, () =>
          Effect.gen(function*() {
            const scratch = yield* Scratch.make
            const { host } = yield* nested("treeline", user, inner(scratch), scratch)
            host.signal("SIGKILL")
            yield* host.awaitDead
            // Well before the time that the inner host would give its tree.
            yield* host.awaitNoDescendants(innerGrace - 1000)
            assert.deepStrictEqual(scratch.living(), [])
          }))
      }

      if (!Host.isNative) continue
      test(
        `${name}: control: child_process leaves it when the outer host is killed`,
        undefined,
        () =>
          Effect.gen(function*() {
            const scratch = yield* Scratch.make
            const { host } = yield* nested("node", self, inner(scratch), scratch)
            host.signal("SIGKILL")
            yield* host.awaitDead
            yield* stays("all of them live", () => scratch.living().length === 3, 300)
          })
      )
    }
  })
})
