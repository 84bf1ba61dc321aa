import { NodeServices } from "@effect/platform-node"
import { Child, Restart } from "@treeline/core"
import { Logs } from "@treeline/core/daemon"
import { PosixPlatform } from "@treeline/platform-posix"
import { Effect, Layer, References } from "effect"
import { ChildProcess } from "effect/process"
import { spawn } from "node:child_process"
import { once } from "node:events"
import * as fs from "node:fs"
import * as os from "node:os"
import * as path from "node:path"
import { performance } from "node:perf_hooks"
import { collect } from "../Garbage.ts"
import { interleaved, median, ms, type Question, share } from "../Report.ts"

const mebibyte = 1024 * 1024

/** Lines of 100 bytes. */
const writes = (mebibytes: number) => `yes ${"x".repeat(99)} | head -c ${mebibytes * mebibyte}`

interface Answer {
  readonly rate: number
  readonly cpu: number
  /** Lines that the disk did not take, as a share of all. */
  readonly lost: number
}

interface Way {
  readonly name: string
  readonly run: (directory: string, mebibytes: number) => Promise<Answer>
}

const shell: Way = {
  name: "`cat > file`",
  run: async (directory, mebibytes) => {
    const startedAt = performance.now()
    await once(spawn("sh", ["-c", `${writes(mebibytes)} | cat > ${directory}/cat.log`], { stdio: "ignore" }), "close")
    return { rate: mebibytes / ((performance.now() - startedAt) / 1000), cpu: Number.NaN, lost: 0 }
  }
}

const services = Layer.mergeAll(
  PosixPlatform.layer,
  NodeServices.layer,
  Layer.succeed(References.MinimumLogLevel, "None")
)

const logged = (name: string, files: Logs.FileOptions | undefined, options: Omit<Logs.Options, "file">): Way => ({
  name,
  run: (directory, mebibytes) =>
    Effect.runPromise(
      Effect.gen(function*() {
        collect()
        const logs = yield* Logs.make({
          ...options,
          ...(files === undefined ? {} : { file: Logs.files(directory, { maxBytes: 100e6, keep: 1, ...files }) })
        })
        const before = process.cpuUsage()
        const startedAt = performance.now()
        const child = yield* Child.start(Child.make("web", {
          command: ChildProcess.make("sh", ["-c", writes(mebibytes)]),
          restart: Restart.temporary()
        }))
        yield* logs.add(child)
        yield* child.awaitEnd
        if (files !== undefined) yield* Effect.flatMap(logs.file("web"), (file) => file.flush)
        const seconds = (performance.now() - startedAt) / 1000
        const { system, user } = process.cpuUsage(before)
        const [status] = yield* logs.status
        return {
          rate: mebibytes / seconds,
          cpu: (user + system) / 1000,
          lost: (status!.file?.lostLines ?? 0) / status!.lines + status!.missing / (mebibytes * mebibyte)
        }
      }).pipe(Effect.scoped, Effect.provide(services))
    )
})

const plain = { timestamps: false, stream: false }

const ways: ReadonlyArray<Way> = [
  shell,
  logged("memory only", undefined, {}),
  logged("file", { layout: plain }, {}),
  logged("file with timestamps", {}, {}),
  logged("file with timestamps, three rules", {}, { redact: ["hunter2", /(token=)\S+/, /password/i] })
]

export const logs: Question = {
  name: "logs",
  run: async ({ progress, rounds, short }) => {
    const mebibytes = short ? 32 : 128
    progress("logs")
    const directory = fs.mkdtempSync(path.join(os.tmpdir(), "treeline-bench-"))
    const measure = async (way: Way): Promise<Answer> => {
      const answer = await way.run(directory, mebibytes)
      for (const name of fs.readdirSync(directory)) fs.rmSync(path.join(directory, name))
      return answer
    }
    try {
      for (const way of ways) await way.run(directory, 4)
      const answers = await interleaved(Math.min(rounds, 7), ways, measure)
      const of = (way: Way, key: keyof Answer) => median(answers[ways.indexOf(way)]!.map((answer) => answer[key]))
      return {
        title: "Logging what a child writes",
        text:
          `A child writes ${mebibytes} MiB in lines of 100 bytes as fast as it can. MiB per second of what it writes, from its
launch until the last line is in the file; the host's processor time; and the share of lines that the disk did not take in
time. Medians.`,
        columns: ["", "MiB/s", `of ${shell.name}`, "host's CPU, ms", "lost"],
        rows: ways.map((way) => [
          way.name,
          of(way, "rate").toFixed(0),
          share(of(way, "rate"), of(shell, "rate")),
          ms(of(way, "cpu")),
          `${(of(way, "lost") * 100).toFixed(1)} %`
        ])
      }
    } finally {
      fs.rmSync(directory, { recursive: true, force: true })
    }
  }
}
