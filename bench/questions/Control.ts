import type { ControlClient } from "@treeline/core/daemon"
import { NodeControl, StateDirectory } from "@treeline/platform-node"
import { Effect, Stream } from "effect"
import { type ChildProcess, fork } from "node:child_process"
import { once } from "node:events"
import * as fs from "node:fs"
import * as net from "node:net"
import * as os from "node:os"
import * as path from "node:path"
import { performance } from "node:perf_hooks"
import { fileURLToPath } from "node:url"
import { ms, quantile, type Question } from "../Report.ts"

const program = fileURLToPath(new URL("../control.ts", import.meta.url))

/** Answers that are waited for, one after another. */
const asks = 1000

interface Host {
  readonly folder: string
  readonly address: StateDirectory.ControlAddress
  /** MiB after a collection. */
  readonly memory: () => Promise<{ readonly kept: number; readonly resident: number }>
  readonly close: () => Promise<void>
}

const hostOf = async (kind: string): Promise<Host> => {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), "treeline-bench-"))
  const child: ChildProcess = fork(program, [folder, kind], { execArgv: ["--conditions=source"] })
  const next = async () => {
    const [message] = await once(child, "message") as [unknown]
    return message
  }
  await next()
  const { control } = await Effect.runPromise(StateDirectory.locate({ file: path.join(folder, "treeline.json") }))
  return {
    folder,
    address: control,
    memory: async () => {
      child.send("memory")
      return await next() as { kept: number; resident: number }
    },
    close: async () => {
      const closed = once(child, "exit")
      child.kill("SIGTERM")
      await closed
      fs.rmSync(folder, { recursive: true, force: true })
    }
  }
}

/** Round trips of a bare socket whose answers have so many bytes: times in ms. */
const roundTrips = async (file: string, bytes: number): Promise<ReadonlyArray<number>> => {
  const socket = net.connect(file)
  await once(socket, "connect")
  const times: Array<number> = []
  for (let n = 0; n < asks; n++) {
    const startedAt = performance.now()
    socket.write(`${bytes}\n`)
    await new Promise<void>((resolve) => {
      let left = bytes
      const take = (data: Buffer) => {
        left -= data.length
        if (left > 0) return
        socket.off("data", take)
        resolve()
      }
      socket.on("data", take)
    })
    times.push(performance.now() - startedAt)
  }
  socket.destroy()
  return times
}

const askStatus = (address: StateDirectory.ControlAddress) =>
  Effect.runPromise(Effect.scoped(Effect.gen(function*() {
    const client = yield* NodeControl.connect(address)
    for (let n = 0; n < 50; n++) yield* client.status
    const times: Array<number> = []
    for (let n = 0; n < asks; n++) {
      const startedAt = performance.now()
      yield* client.status
      times.push(performance.now() - startedAt)
    }
    return { times, status: yield* client.status }
  })))

/** MiB per second of lines that come through, and the share of lines that were missed. */
const followLogs = (address: StateDirectory.ControlAddress, seconds: number) =>
  Effect.runPromise(Effect.scoped(Effect.gen(function*() {
    const client: ControlClient.Client = yield* NodeControl.connect(address)
    let [bytes, lines, missed] = [0, 0, 0]
    const startedAt = performance.now()
    yield* client.logs({ from: "now", follow: true }).pipe(
      Stream.runForEach((entry) =>
        Effect.sync(() => {
          if (entry._tag === "Line") {
            bytes += entry.text.length + 1
            lines++
          } else missed += entry.lines
        })
      ),
      Effect.timeoutOption(seconds * 1000)
    )
    const elapsed = (performance.now() - startedAt) / 1000
    return { rate: bytes / 1024 / 1024 / elapsed, lost: missed / (missed + lines) }
  })))

/** Asks for logs, acknowledges what it never reads, and asks on and on. */
const getStuck = async (address: StateDirectory.ControlAddress): Promise<net.Socket> => {
  if (address._tag !== "Socket") throw new Error("no socket")
  const socket = net.connect(address.path)
  await once(socket, "connect")
  socket.pause().on("error", () => {})
  const send = (message: unknown) => socket.write(`${JSON.stringify(message)}\n`)
  const headers = [["treeline-protocol", "1"]]
  const payload = { services: [], from: "start", follow: true }
  send({ _tag: "Request", id: 1, tag: "Logs", payload, headers })
  for (let n = 2; n < 2000; n++) {
    send({ _tag: "Ack", requestId: 1 })
    send({ _tag: "Request", id: n, tag: "Status", payload: null, headers })
  }
  return socket
}

const seconds = 3

export const control: Question = {
  name: "control",
  run: async ({ progress }) => {
    progress("control: status")
    const many = await hostOf("many")
    const rows: Array<ReadonlyArray<string>> = []
    const row = (name: string, times: ReadonlyArray<number>) =>
      rows.push([name, ms(quantile(times, 0.5)), ms(quantile(times, 0.99)), ms(Math.max(...times)), "-"])
    const { status, times } = await askStatus(many.address)
    const bytes = JSON.stringify(status).length
    const slow = status.services.find(({ name }) => name === "slow")
    row("a bare round trip of one byte", await roundTrips(path.join(many.folder, "bare.sock"), 1))
    row(
      `a bare round trip of ${(bytes / 1024).toFixed(0)} KiB`,
      await roundTrips(path.join(many.folder, "bare.sock"), bytes)
    )
    row(`status of ${status.services.length} services, one of them ${slow?.child.state._tag}`, times)
    await many.close()

    progress("control: logs")
    const chatty = await hostOf("chatty")
    const before = await chatty.memory()
    const { lost, rate } = await followLogs(chatty.address, seconds)
    rows.push([
      `following one that writes all it can, ${seconds} s`,
      "-",
      "-",
      "-",
      `${rate.toFixed(1)} MiB/s, ${(lost * 100).toFixed(0)} % told as missed`
    ])
    progress("control: stuck")
    const stuck = await getStuck(chatty.address)
    await new Promise((resolve) => setTimeout(resolve, seconds * 1000))
    const after = await chatty.memory()
    rows.push([
      `a client that asks and reads nothing, ${seconds} s`,
      "-",
      "-",
      "-",
      `${(after.kept - before.kept).toFixed(1)} MiB more kept`
    ])
    stuck.destroy()
    await chatty.close()
    return {
      title: "Control over a Unix socket",
      text:
        `Another process asks, one answer after another, ${asks} times; the bare sockets are in the same host. In ms. The client that
reads nothing asked for all logs and for 2,000 snapshots, and acknowledged what it had not read.`,
      columns: ["", "p50", "p99", "max", "other"],
      rows
    }
  }
}
