/** Control on Windows: a port of this machine, and a token in a file that only its user can read. */
import { NodeServices } from "@effect/platform-node"
import { assert, layer } from "@effect/vitest"
import { NodeControl, StateDirectory } from "@treeline/platform-node"
import { WindowsPlatform } from "@treeline/platform-windows"
import { Effect, Layer, References } from "effect"
import * as fs from "node:fs"
import * as http from "node:http"
import * as net from "node:net"
import * as os from "node:os"
import * as path from "node:path"
import { eventually } from "../support/Eventually.ts"
import * as ScriptedHost from "../support/ScriptedHost.ts"
import { accountOfThisProcess, accountsOfFile, systemAccount } from "./support/Accounts.ts"

const platform = Layer.mergeAll(
  WindowsPlatform.layer,
  NodeServices.layer,
  Layer.succeed(References.MinimumLogLevel, "None")
)

const folder = Effect.acquireRelease(
  Effect.sync(() => fs.mkdtempSync(path.join(os.tmpdir(), "treeline-"))),
  (folder) => Effect.sync(() => fs.rmSync(folder, { recursive: true, force: true, maxRetries: 5 }))
)

/** Where control is on Windows when nothing is said of it. */
const locate = (directory: string) =>
  Effect.gen(function*() {
    const found = yield* StateDirectory.locate({ file: path.join(directory, "treeline.json") })
    assert(found.control._tag === "Port")
    return { ...found, control: found.control }
  })

const serve = Effect.fnUntraced(function*(control: StateDirectory.ControlAddress) {
  const { calls, host } = ScriptedHost.make({ reopenLogs: Effect.never })
  const listener = yield* NodeControl.listen(control)
  yield* Layer.build(NodeControl.serve(host, listener))
  return { calls, listener }
})

interface Known {
  readonly port: number
  readonly token: string
  readonly pid: number
}

const known = (file: string): Known => JSON.parse(fs.readFileSync(file, "utf8"))

const refusedOf = <A>(effect: Effect.Effect<A, { readonly _tag: string; readonly reason?: string }>) =>
  Effect.map(Effect.flip(effect), ({ _tag, reason }) => reason === undefined ? _tag : `${_tag} ${reason}`)

layer(platform, { excludeTestServices: true })("control", (it) => {
  it.effect("K14: whoever can read the token gets in, nobody else; its file goes with the server", () =>
    Effect.gen(function*() {
      const { control, directory } = yield* locate(yield* folder)
      assert.strictEqual(yield* refusedOf(Effect.scoped(NodeControl.connect(control))), "ControlUnavailable NotRunning")
      yield* Effect.scoped(Effect.gen(function*() {
        const { calls } = yield* serve(control)
        const { port, token } = known(control.file)
        const client = yield* NodeControl.connect(control)
        assert.strictEqual((yield* client.status).phase, "running")

        const wrong = `${token.startsWith("0") ? "1" : "0"}${token.slice(1)}`
        // Made as control makes its own, so that only the token is another one.
        const elsewhere = yield* locate(path.join(directory, "elsewhere"))
        yield* Effect.scoped(Effect.gen(function*() {
          yield* serve(elsewhere.control)
          fs.writeFileSync(elsewhere.control.file, JSON.stringify({ port, pid: 1, token: wrong }))
          assert.strictEqual(
            yield* refusedOf(Effect.scoped(NodeControl.connect(elsewhere.control))),
            "ControlDenied BadToken"
          )
        }))

        const heard = yield* Effect.promise(() =>
          new Promise<string>((resolve) => {
            let text = ""
            const socket = net.connect({ port, host: "127.0.0.1" })
            socket.setEncoding("utf8").on("data", (chunk: string) => (text += chunk))
            socket.on("error", () => {})
            socket.on("close", () => resolve(text))
            const headers = [["treeline-protocol", "1"]]
            socket.write(`${JSON.stringify({ _tag: "Request", id: 1, tag: "Status", payload: null, headers })}\n`)
          })
        )
        assert.match(heard, /BadToken/, "without a token")

        const page = yield* Effect.promise(() =>
          new Promise<{ readonly code: number | undefined; readonly text: string }>((resolve, reject) => {
            const headers = { host: `127.0.0.1:${port}`, authorization: `Bearer ${token}` }
            const request = http.get({ host: "127.0.0.1", port, path: "/status", headers }, (response) => {
              let text = ""
              response.setEncoding("utf8").on("data", (chunk: string) => (text += chunk))
              response.on("end", () => resolve({ code: response.statusCode, text }))
            })
            request.on("error", reject)
          })
        )
        assert.strictEqual(page.code, 403)
        assert.include(page.text, "ControlDenied")

        assert.deepStrictEqual(calls, [])
        const second = yield* Effect.flip(Effect.scoped(NodeControl.listen(control)))
        assert.strictEqual(second._tag === "AlreadyRunning" && second.pid, 7)
        const told = [yield* client.status, second, String(second), page, heard, process.argv]
        assert.notInclude(JSON.stringify(told), token)
      }))
      yield* eventually("its file has gone", () => !fs.existsSync(control.file))
    }))

  it.effect("K14: the folder and the file with the token are for this account only", () =>
    Effect.gen(function*() {
      const directory = yield* folder
      // Also what is missing above it: the folder of another command's state may be there.
      const above = path.join(directory, "above")
      const located = yield* locate(above)
      yield* serve(located.control)
      const own = accountOfThisProcess()
      // Wine has no lists of its own: it makes one of the mode on Linux, and the system is always in it.
      for (const file of [above, located.directory, located.control.file]) {
        const accounts = [...accountsOfFile(file)].filter((account) => account !== systemAccount)
        assert.deepStrictEqual(accounts, [own], file)
      }
      assert.isAbove(
        accountsOfFile(directory).size,
        accountsOfFile(located.directory).size,
        "others may enter that one"
      )
    }))

  it.effect("K14: a folder or a file of the token that others may open is refused, with what to do", () =>
    Effect.gen(function*() {
      const first = yield* locate(yield* folder)
      fs.mkdirSync(first.directory)
      const refused = yield* Effect.flip(Effect.scoped(NodeControl.listen(first.control)))
      assert.strictEqual(refused._tag, "InvalidSpec")
      assert.match(refused.message, /may be opened by others \(S-1-1-0\): move it away and one for you alone is made/)

      const second = yield* locate(yield* folder)
      yield* serve(second.control)
      const text = fs.readFileSync(second.control.file)
      fs.rmSync(second.control.file)
      fs.writeFileSync(second.control.file, text)
      assert.strictEqual(
        yield* refusedOf(Effect.scoped(NodeControl.connect(second.control))),
        "ControlUnavailable Foreign"
      )
    }))
})
