import * as fs from "node:fs"
import { performance } from "node:perf_hooks"
import { Scratch } from "../../test/support/Scratch.ts"
import { type Seen, SidecarClient } from "../../test/support/SidecarClient.ts"
import { environment } from "../../test/support/TreelineCommand.ts"
import { all, type Contender } from "../Contenders.ts"
import { collect } from "../Garbage.ts"
import { interleaved, median, ms, type Question, share } from "../Report.ts"

const mebibyte = 1024 * 1024

type Reader = Pick<Contender, "name" | "run" | "read" | "dispose">

/** One session for everything, as a client has it; the client is Node, too. */
const connect = async (): Promise<Reader> => {
  const scratch = new Scratch()
  const client = new SidecarClient([], { cwd: scratch.directory, env: environment(scratch) })
  await client.request("hello", { protocol: 1 })
  const spawn = async (command: string, args: ReadonlyArray<string>, stderr: "pipe" | "ignore") => {
    const credit = { stdout: 2 ** 50, stderr: 2 ** 50 }
    const { process } = await client.request<{ process: number }>("spawn", { command, args, credit, stderr })
    return client.seen(process)
  }
  const event = (seen: Seen, name: string) =>
    new Promise<void>((resolve) => {
      if (seen.told.has(name)) resolve()
      else seen.onTold = () => seen.told.has(name) && resolve()
    })
  return {
    name: "treeline sidecar",
    run: async (command, args, started) => {
      const seen = await spawn(command, args, "pipe")
      started()
      await event(seen, "drained")
    },
    read: async (command, args, onChunk) => {
      const seen = await spawn(command, args, "ignore")
      seen.stdout.splice(0).forEach(onChunk)
      seen.onOutput = onChunk
      await event(seen, "drained")
    },
    dispose: async () => {
      client.close()
      await client.awaitEnd()
      fs.rmSync(scratch.directory, { recursive: true, force: true })
    }
  }
}

const measure = (mebibytes: number, launches: number) => async (contender: Reader) => {
  let read = 0
  collect()
  let startedAt = performance.now()
  await contender.read("dd", ["if=/dev/zero", "bs=65536", `count=${mebibytes * 16}`], (chunk) => (read += chunk.length))
  const rate = mebibytes / ((performance.now() - startedAt) / 1000)
  if (read !== mebibytes * mebibyte) throw new Error(`${contender.name}: ${read} bytes of ${mebibytes} MiB`)
  const times: Array<number> = []
  for (let count = 0; count < launches; count++) {
    startedAt = performance.now()
    await contender.run("true", [], () => {})
    times.push(performance.now() - startedAt)
  }
  return { rate, run: median(times) }
}

export const sidecar: Question = {
  name: "sidecar",
  run: async ({ progress, rounds }) => {
    progress("sidecar")
    const inProcess = all()
    const compared = inProcess.filter(({ name }) => name === "child_process" || name === "Treeline launch")
    const contenders: ReadonlyArray<Reader> = [...compared, await connect()]
    for (const contender of contenders) await measure(16, 1)(contender)
    const answers = await interleaved(rounds, contenders, measure(256, 20))
    await Promise.all([...inProcess, contenders.at(-1)!].map((contender) => contender.dispose()))
    const of = (index: number, key: "rate" | "run") => median(answers[index]!.map((answer) => answer[key]))
    return {
      title: "Through the sidecar",
      text:
        `The same by \`treeline sidecar\`, a process of its own that is spoken to in JSON, with a client in Node: \`dd\`
writes 256 MiB of zeros, and every byte is read, MiB per second; and from the wish to start \`true\` until its end and all its
output are known, ms. Medians.`,
      columns: ["", "MiB/s", "of child_process", "`true`, ms", "of child_process"],
      rows: contenders.map(({ name }, index) => [
        name,
        of(index, "rate").toFixed(0),
        share(of(index, "rate"), of(0, "rate")),
        ms(of(index, "run")),
        share(of(index, "run"), of(0, "run"))
      ])
    }
  }
}
