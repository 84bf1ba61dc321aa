import { execFileSync } from "node:child_process"
import * as fs from "node:fs"
import { performance } from "node:perf_hooks"
import { Scratch } from "../../test/support/Scratch.ts"
import { all, type Contender } from "../Contenders.ts"
import { interleaved, median, ms, type Question, share } from "../Report.ts"

const mebibyte = 1024 * 1024

/** Writes of 64 KiB, as much as a pipe holds. */
const writes = (mebibytes: number) => ["if=/dev/zero", "bs=65536", `count=${mebibytes * 16}`]

/** Reads one pipe to its end: MiB per second, and the host's own processor time in ms. */
const measureOne = (mebibytes: number) => async (contender: Contender) => {
  let read = 0
  const before = process.cpuUsage()
  const startedAt = performance.now()
  await contender.read("dd", writes(mebibytes), (chunk) => (read += chunk.length))
  const seconds = (performance.now() - startedAt) / 1000
  const { system, user } = process.cpuUsage(before)
  if (read !== mebibytes * mebibyte) throw new Error(`${contender.name}: ${read} bytes of ${mebibytes} MiB`)
  return { rate: mebibytes / seconds, cpu: (user + system) / 1000 }
}

/**
 * Says that it runs, takes one newline out of the queue, and writes: so the launches are over when the first byte is
 * written, and nobody has a head start.
 */
const gated = `echo; read -r go <"$1"; exec dd if=/dev/zero bs=65536 count="$2"`

/** Reads `count` pipes at once. */
const measureMany = (count: number, mebibytes: number) => async (contender: Contender) => {
  const scratch = new Scratch()
  const gate = scratch.file("gate")
  execFileSync("mkfifo", [gate])
  // Both directions, so that a reader that comes late still finds its newline.
  const fd = fs.openSync(gate, "r+")
  try {
    const each = mebibytes * mebibyte
    const read = Array.from({ length: count }, () => 0)
    const done = Array.from({ length: count }, () => 0)
    let waiting = count
    let total = 0
    let startedAt = Number.NaN
    let atHalf: ReadonlyArray<number> | undefined
    let before = process.cpuUsage()
    await Promise.all(read.map((_, at) =>
      contender.read("sh", ["-c", gated, "sh", gate, String(mebibytes * 16)], (chunk) => {
        let { length } = chunk
        if (read[at] === 0 && done[at] === 0) {
          // The newline that says that it runs.
          length--
          done[at] = Number.NaN
          if (--waiting === 0) {
            before = process.cpuUsage()
            startedAt = performance.now()
            fs.writeSync(fd, "\n".repeat(count))
          }
        }
        read[at]! += length
        total += length
        if (atHalf === undefined && total >= count * each / 2) atHalf = [...read]
        if (read[at] === each) done[at] = performance.now()
      })
    ))
    if (read.some((bytes) => bytes !== each)) throw new Error(`${contender.name}: ${total} bytes of ${count * each}`)
    const { system, user } = process.cpuUsage(before)
    const took = Math.max(...done) - startedAt
    const fair = count * each / 2 / count
    return {
      rate: count * mebibytes / (took / 1000),
      cpu: (user + system) / 1000,
      least: Math.min(...atHalf!) / fair,
      most: Math.max(...atHalf!) / fair,
      first: (Math.min(...done) - startedAt) / took
    }
  } finally {
    fs.closeSync(fd)
    scratch.killLiving()
    fs.rmSync(scratch.directory, { recursive: true, force: true })
  }
}

export const throughput: Question = {
  name: "throughput",
  run: async ({ progress, rounds, short }) => {
    const contenders = all()
    const mebibytes = short ? 64 : 256
    progress("throughput, one pipe")
    for (const contender of contenders) await measureOne(16)(contender)
    const answers = await interleaved(rounds, contenders, measureOne(mebibytes))
    await Promise.all(contenders.map((contender) => contender.dispose()))
    const of = (at: number, key: "rate" | "cpu") => median(answers[at]!.map((answer) => answer[key]))
    const at = (name: string) => contenders.findIndex((contender) => contender.name === name)
    return {
      title: "Reading one pipe",
      text: `\`dd\` writes ${mebibytes} MiB of zeros, 64 KiB at a time, and every chunk is read: MiB per second, launch and end
included, and the processor time of the host alone. Medians.`,
      columns: ["", "MiB/s", "of child_process", "host's CPU, ms", "of child_process"],
      rows: contenders.map(({ name }, at) => [
        name,
        of(at, "rate").toFixed(0),
        share(of(at, "rate"), of(0, "rate")),
        ms(of(at, "cpu")),
        share(of(at, "cpu"), of(0, "cpu"))
      ]),
      figures: {
        "one pipe, Treeline launch of child_process": of(at("Treeline launch"), "rate") / of(0, "rate"),
        "one pipe, Treeline drop-in of Effect's layer": of(at("Treeline drop-in"), "rate") /
          of(at("Effect's layer"), "rate")
      }
    }
  }
}

export const pipes: Question = {
  name: "pipes",
  run: async ({ progress, rounds, short }) => {
    const contenders = all()
    const [count, mebibytes] = short ? [50, 1] : [50, 8]
    progress("throughput, 50 pipes")
    for (const contender of contenders) await measureMany(5, 1)(contender)
    const answers = await interleaved(Math.min(rounds, 7), contenders, measureMany(count, mebibytes))
    await Promise.all(contenders.map((contender) => contender.dispose()))
    const of = (at: number, key: "rate" | "cpu" | "least" | "most" | "first") =>
      median(answers[at]!.map((answer) => answer[key]))
    const at = (name: string) => contenders.findIndex((contender) => contender.name === name)
    return {
      title: `Reading ${count} pipes at once`,
      text: `${count} children that wait for each other write ${mebibytes} MiB each: MiB per second from the first write to the last
read, all together; and when half of everything is read, what was read of the pipe that is last and of the one that is
first, as shares of the mean (1.00 is fair, 0 is starved); and when the first pipe was done, as a share of the whole time.
Medians.`,
      columns: ["", "MiB/s", "of child_process", "host's CPU, ms", "least", "most", "first done"],
      rows: contenders.map(({ name }, at) => [
        name,
        of(at, "rate").toFixed(0),
        share(of(at, "rate"), of(0, "rate")),
        ms(of(at, "cpu")),
        of(at, "least").toFixed(2),
        of(at, "most").toFixed(2),
        of(at, "first").toFixed(2)
      ]),
      figures: {
        "50 pipes, Treeline launch of child_process": of(at("Treeline launch"), "rate") / of(0, "rate"),
        "50 pipes, least share": of(at("Treeline launch"), "least")
      }
    }
  }
}
