/** Who is kept out of a daemon: another user of the machine at any instant, and whoever may read anything but the token. */
import { assert, describe } from "@effect/vitest"
import { Effect } from "effect"
import * as fs from "node:fs"
import * as net from "node:net"
import * as path from "node:path"
import { freePort } from "../support/Children.ts"
import { changed, log, realWith, recorded, refused, stateFolder } from "../support/DaemonCommand.ts"
import * as Descendants from "../support/Descendants.ts"
import { fixture, unprivileged } from "../support/Host.ts"
import type * as Scratch from "../support/Scratch.ts"
import * as Command from "../support/TreelineCommand.ts"
import * as Up from "../support/Up.ts"

const isRoot = process.getuid?.() === 0

// ------------------------------------------------------------------------------------------------- another user

const asNobody = ["setpriv", `--reuid=${unprivileged}`, `--regid=${unprivileged}`, "--clear-groups"]

/** Tries all the time, as another user; see intruder.pl. */
const intruder = (scratch: Scratch.Scratch, what: "connect" | "meddle", socket: string) =>
  Effect.gen(function*() {
    const script = scratch.file("intruder.pl")
    fs.copyFileSync(fixture("intruder.pl"), script)
    fs.chmodSync(script, 0o644)
    const peer = yield* Command.start([], {
      scratch,
      program: [...asNobody, "perl", script, what, socket],
      sparesOthers: true
    })
    yield* peer.awaitOutput("ready")
    return Effect.gen(function*() {
      peer.input!.end()
      const { stderr, stdout } = yield* peer.ended
      assert.strictEqual(stderr, "")
      const [tries = "", ...done] = stdout.trim().split("\n").at(-1)!.split(" ")
      return { tries: Number(tries), done: done.join(" ") }
    })
  })

const connected = (socket: string) =>
  Effect.callback<boolean>((resume) => {
    const connection = net.connect(socket)
    connection.on("connect", () => resume(Effect.succeed(true))).on("error", () => resume(Effect.succeed(false)))
    return Effect.sync(() => connection.destroy())
  })

describe("another user of the machine (needs root and setpriv)", () => {
  for (const umask of ["000", "022"]) {
    realWith(!isRoot)(
      `peer 107: reaches the control socket at no instant of a start and takes no place of it, umask ${umask}`,
      (scratch) =>
        Effect.gen(function*() {
          // Others may enter it, and no more.
          const folder = scratch.file("shop")
          fs.mkdirSync(folder)
          fs.chmodSync(folder, 0o755)
          const config = path.join(folder, "treeline.json")
          fs.writeFileSync(config, JSON.stringify({ services: { web: Up.role(scratch, "plain") } }))
          const socket = path.join(folder, ".treeline/control.sock")
          const peers = [yield* intruder(scratch, "connect", socket), yield* intruder(scratch, "meddle", socket)]
          const start = yield* Command.run(["daemon", "start", "--config", config], {
            scratch,
            program: ["sh", "-c", `umask ${umask}; exec "$@"`, "sh", ...Command.treeline],
            sparesOthers: true
          })
          assert.strictEqual(start.code, 0, start.stderr)
          assert.isTrue(yield* connected(socket), "its owner may")
          const seen = yield* Effect.forEach(peers, (result) => result)
          assert.isAtLeast(Math.min(...seen.map(({ tries }) => tries)), 1000)
          assert.deepStrictEqual(seen.map(({ done }) => done), ["0", ""])
          // And the same may where it is allowed to.
          fs.chmodSync(path.dirname(socket), 0o777)
          fs.chmodSync(socket, 0o666)
          const allowed = [yield* intruder(scratch, "connect", socket), yield* intruder(scratch, "meddle", socket)]
          const [entered, meddled] = yield* Effect.forEach(allowed, (result) => result)
          assert.isAbove(Number(entered!.done), 0)
          assert.include(meddled!.done, "looked")
          assert.include(meddled!.done, "bound")
          fs.chmodSync(path.dirname(socket), 0o700)
          const stop = yield* Command.run(["daemon", "stop", "--config", config], { scratch })
          assert.strictEqual(stop.code, 0, stop.stderr)
        })
    )
  }

  realWith(!isRoot)(
    "peer 107: who was in its place first is told, and nothing is started",
    (scratch) =>
      Effect.gen(function*() {
        // Everybody may write beside the configuration.
        Up.configure(scratch, { services: { web: Up.role(scratch, "plain") } })
        const mine = scratch.file("mine")
        fs.mkdirSync(mine, { mode: 0o700 })
        const places: ReadonlyArray<readonly [() => void, string]> = [
          [() => fs.mkdirSync(stateFolder(scratch), { mode: 0o700 }), `belongs to another user (uid ${unprivileged})`],
          [() => fs.symlinkSync(mine, stateFolder(scratch)), "is a symbolic link"]
        ]
        for (const [make, problem] of places) {
          make()
          fs.lchownSync(stateFolder(scratch), unprivileged, unprivileged)
          for (const verb of ["start", "stop", "restart"]) {
            const failure = yield* refused(scratch, [verb], 125)
            assert.strictEqual(failure.error._tag, "StateFolderError")
            assert.include(failure.message, problem)
          }
          assert.deepStrictEqual([fs.readdirSync(stateFolder(scratch)), fs.readdirSync(mine)], [[], []])
          fs.rmSync(stateFolder(scratch), { recursive: true })
        }
        assert.deepStrictEqual(scratch.reported(), [])
      })
  )
})

// ------------------------------------------------------------------------------------------------------ the token

/** What a secret was looked for in: names of places, and the text that is there. */
type Places = ReadonlyMap<string, string>

const read = (file: string): string => {
  try {
    return fs.readFileSync(file, "latin1")
  } catch {
    return "" // it has gone, or is no file
  }
}

/** All that is in a folder, but one file. */
const filesIn = (folder: string, except: string): Places =>
  new Map(
    fs.readdirSync(folder, { recursive: true, encoding: "utf8" }).map((name) => path.join(folder, name))
      .filter((file) => file !== except).map((file) => [file, read(file)])
  )

/** What the system shows of a process and of all below it. */
const processesOf = (pid: number): Effect.Effect<Places> =>
  Effect.scoped(Effect.map(Descendants.watch(pid), ({ tree }) =>
    new Map(
      tree(pid).flatMap(({ pid }) => ["cmdline", "environ"].map((file) => `/proc/${pid}/${file}`))
        .map((file) => [file, read(file)] as const)
    )))

const placesWith = (secret: string, places: Places): ReadonlyArray<string> =>
  [...places].filter(([, text]) => text.includes(secret)).map(([place]) => place)

/** What commands say, on both streams. */
const streamsOf = (scratch: Scratch.Scratch, commands: ReadonlyArray<string>): Effect.Effect<Places> =>
  Effect.map(
    Effect.forEach(commands, (words) =>
      Effect.map(
        Command.run(words.split(" "), { scratch, sparesOthers: true }),
        ({ stderr, stdout }) => [`treeline ${words}`, stdout + stderr] as const
      ), { concurrency: 2 }),
    (said) => new Map(said)
  )

/** What anybody on the machine gets from the port who shows no token, or another one. */
const answersOf = (port: number): Effect.Effect<Places> =>
  Effect.map(
    Effect.forEach([
      "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
      `${
        JSON.stringify({ _tag: "Request", id: 1, tag: "Status", payload: null, headers: [["treeline-protocol", "1"]] })
      }\n`,
      "rubbish\n"
    ], (words) =>
      Effect.callback<readonly [string, string]>((resume) => {
        let heard = ""
        const socket = net.connect({ port, host: "127.0.0.1" }, () => socket.write(words))
        socket.setEncoding("utf8").on("data", (text: string) => (heard += text)).on("error", () => {})
        socket.on("close", () => resume(Effect.succeed([`who says ${words}`, heard])))
        return Effect.sync(() => socket.destroy())
      })),
    (answers) => new Map(answers)
  )

/** What tells something is asked for both forms. */
const commands = [
  ...["daemon status", "daemon version", "status", "logs", "events", "config --explain", "start nobody"]
    .flatMap((words) => [words, `${words} --json`]),
  "daemon start --json",
  "daemon install --dry-run",
  "config",
  "pause --json",
  "resume",
  "restart web --json",
  "signal web CONT",
  "stop web",
  "start web --json",
  "reload"
]

describe("the token of a port", () => {
  realWith(process.platform !== "linux")(
    "is in its file, which only its user can read, and in nothing else that can be read, told or logged",
    (scratch) =>
      Effect.gen(function*() {
        // What a leak would look like: in arguments, environment, output and logs of a service.
        const planted = "planted-0123456789abcdef"
        const leaking = {
          command: "sh",
          args: ["-c", `echo "$PLANTED"; echo "leak $$" >>"$1"; sleep 60; exit`, planted, scratch.report],
          env: { PLANTED: planted },
          logs: { file: "web.log" }
        }
        const port = yield* freePort
        Up.configure(scratch, { daemon: { port }, services: { web: leaking } })
        const file = path.join(stateFolder(scratch), "control.json")
        const { pid } = yield* changed(scratch, "start")
        yield* scratch.awaitNamed("leak")
        const { token } = JSON.parse(fs.readFileSync(file, "utf8")) as { readonly token: string }
        assert.match(token, /^[0-9a-f]{64}$/)
        assert.strictEqual(fs.statSync(file).mode & 0o777, 0o600)
        const record = filesIn(path.join(stateFolder(scratch), "daemon"), "")
        assert.strictEqual(record.size, 1)

        const told = yield* streamsOf(scratch, commands)
        const answers = yield* answersOf(port)
        const processes = yield* processesOf(pid!)
        // Commands whose own file says something else, is open to others, or is none.
        const own = fs.readFileSync(file, "utf8")
        const other = token.split("").toReversed().join("")
        const failures = new Map<string, string>()
        for (
          const [name, text, mode] of [
            ["another token", own.replace(token, other), 0o600],
            ["a file for all", own, 0o644],
            ["rubbish", own.slice(0, -3), 0o600]
          ] as const
        ) {
          fs.writeFileSync(file, text)
          fs.chmodSync(file, mode)
          for (const [place, said] of yield* streamsOf(scratch, ["status", "status --json", "daemon status"])) {
            failures.set(`${place}: ${name}`, said)
            assert.notInclude(said, other)
          }
        }
        assert.include(failures.get("treeline status --json: another token"), "BadToken")
        assert.include(told.get("treeline daemon start --json"), "alreadyRunning")
        fs.writeFileSync(file, own)
        fs.chmodSync(file, 0o600)
        const restarted = yield* changed(scratch, "restart")
        const next = (JSON.parse(fs.readFileSync(file, "utf8")) as { readonly token: string }).token
        assert.notStrictEqual(next, token)
        const after = yield* processesOf(restarted.pid!)
        yield* changed(scratch, "stop")
        assert.isFalse(fs.existsSync(file))
        const files = filesIn(scratch.directory, "")
        for (const name of ["daemon.log", "daemon.err", "daemon.err.previous"]) {
          assert.isTrue(files.has(path.join(stateFolder(scratch), name)), name)
        }
        assert.isNotEmpty(log(scratch))

        const places = new Map([...record, ...told, ...answers, ...processes, ...failures, ...after, ...files])
        assert.deepStrictEqual(placesWith(token, places), [])
        assert.deepStrictEqual(placesWith(next, places), [])
        // The same look finds what is there: so it would find the token.
        const found = placesWith(planted, places)
        for (const place of ["treeline logs", "treeline logs --json", "treeline config"]) assert.include(found, place)
        for (const kind of [/\/cmdline$/, /\/environ$/, /web\.log$/]) {
          assert.isTrue(found.some((at) => kind.test(at)), `${kind}`)
        }
        assert.isUndefined(recorded(scratch))
      })
  )
})
