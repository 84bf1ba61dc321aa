import { execFileSync, spawn } from "node:child_process"
import { once } from "node:events"
import * as fs from "node:fs"
import { performance } from "node:perf_hooks"
import { Scratch } from "../../test/support/Scratch.ts"
import { all, type Contender } from "../Contenders.ts"
import { collect } from "../Garbage.ts"
import { interleaved, median, ms, type Question, share } from "../Report.ts"

const mebibyte = 1024 * 1024

/** Writes of 64 KiB, as much as a pipe holds. */
const writes = (mebibytes: number) => ["if=/dev/zero", "bs=65536", `count=${mebibytes * 16}`]

/** Reads one pipe to its end: MiB per second, and the host's own processor time in ms. */
const measureOne = (mebibytes: number) => async (contender: Contender) => {
  let read = 0
  collect()
  const before = process.cpuUsage()
  const startedAt = performance.now()
  await contender.read("dd", writes(mebibytes), (chunk) => (read += chunk.length))
  const seconds = (performance.now() - startedAt) / 1000
  const { system, user } = process.cpuUsage(before)
  if (read !== mebibytes * mebibyte) throw new Error(`${contender.name}: ${read} bytes of ${mebibytes} MiB`)
  return { rate: mebibytes / seconds, cpu: (user + system) / 1000 }
}

/** The same bytes from one program to another, without any host: MiB per second. No reader can be much faster. */
const measureShell = async (mebibytes: number): Promise<number> => {
  const startedAt = performance.now()
  const script = `dd if=/dev/zero bs=65536 count=${mebibytes * 16} | dd of=/dev/null bs=65536`
  await once(spawn("sh", ["-c", script], { stdio: "ignore" }), "close")
  return mebibytes / ((performance.now() - startedAt) / 1000)
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
    const pipes = Array.from({ length: count }, () => ({ ready: false, read: 0, at: 0, pause: 0 }))
    let waiting = count
    let total = 0
    let startedAt = Number.NaN
    let before = process.cpuUsage()
    let atHalf: ReadonlyArray<number> | undefined
    const open = () => {
      collect()
      before = process.cpuUsage()
      startedAt = performance.now()
      for (const pipe of pipes) pipe.at = startedAt
      fs.writeSync(fd, "\n".repeat(count))
    }
    await Promise.all(
      pipes.map((pipe) =>
        contender.read("sh", ["-c", gated, "sh", gate, String(mebibytes * 16)], ({ length }) => {
          if (!pipe.ready) {
            pipe.ready = true
            if (--waiting === 0) open()
            return
          }
          const now = performance.now()
          pipe.pause = Math.max(pipe.pause, now - pipe.at)
          pipe.at = now
          pipe.read += length
          total += length
          if (atHalf === undefined && total >= count * each / 2) atHalf = pipes.map(({ read }) => read)
        })
      )
    )
    if (pipes.some(({ read }) => read !== each)) throw new Error(`${contender.name}: ${total} of ${count * each} bytes`)
    const { system, user } = process.cpuUsage(before)
    const took = Math.max(...pipes.map(({ at }) => at)) - startedAt
    return {
      rate: count * mebibytes / (took / 1000),
      cpu: (user + system) / 1000,
      least: Math.min(...atHalf!) / (each / 2),
      most: Math.max(...atHalf!) / (each / 2),
      pause: Math.max(...pipes.map(({ pause }) => pause))
    }
  } finally {
    fs.closeSync(fd)
    scratch.killLiving()
    fs.rmSync(scratch.directory, { recursive: true, force: true })
  }
}

const figureOf = <K extends string>(answers: ReadonlyArray<Readonly<Record<K, number>>>, key: K): number =>
  median(answers.map((answer) => answer[key]))

/** The fastest round, which the rest of the machine has disturbed least: only this is judged. */
const best = (answers: ReadonlyArray<{ readonly rate: number }>): number => Math.max(...answers.map(({ rate }) => rate))

export const throughput: Question = {
  name: "throughput",
  run: async ({ progress, rounds, short }) => {
    const contenders = all()
    const mebibytes = short ? 64 : 256
    progress("throughput, one pipe")
    for (const contender of contenders) await measureOne(16)(contender)
    const answers = await interleaved(short ? 7 : rounds, [undefined, ...contenders], async (contender) => {
      if (contender !== undefined) return await measureOne(mebibytes)(contender)
      return { rate: await measureShell(mebibytes), cpu: Number.NaN }
    })
    await Promise.all(contenders.map((contender) => contender.dispose()))
    const names = ["from program to program", ...contenders.map(({ name }) => name)]
    const of = (name: string, key: "rate" | "cpu") => figureOf(answers[names.indexOf(name)]!, key)
    const top = (name: string) => best(answers[names.indexOf(name)]!)
    return {
      title: "Reading one pipe",
      text:
        `\`dd\` writes ${mebibytes} MiB of zeros, 64 KiB at a time, and every chunk is read: MiB per second, launch and end
included, and the processor time of the host alone. The first row is what the system itself carries from one \`dd\` to
another. Medians.`,
      columns: ["", "MiB/s", "of child_process", "host's CPU, ms", "of child_process"],
      rows: names.map((name) => [
        name,
        of(name, "rate").toFixed(0),
        share(of(name, "rate"), of("child_process", "rate")),
        ms(of(name, "cpu")),
        share(of(name, "cpu"), of("child_process", "cpu"))
      ]),
      figures: {
        "one pipe, launch / child_process": top("Treeline launch") / top("child_process"),
        "one pipe, drop-in / Effect's layer": top("Treeline drop-in") / top("Effect's layer")
      }
    }
  }
}

export const pipes: Question = {
  name: "pipes",
  run: async ({ progress, rounds, short }) => {
    const contenders = all()
    const [count, mebibytes] = [50, short ? 4 : 16]
    progress(`throughput, ${count} pipes`)
    for (const contender of contenders) await measureMany(5, 1)(contender)
    const answers = await interleaved(Math.min(rounds, 7), contenders, measureMany(count, mebibytes))
    await Promise.all(contenders.map((contender) => contender.dispose()))
    const names = contenders.map(({ name }) => name)
    const of = (name: string, key: "rate" | "cpu" | "least" | "most" | "pause") =>
      figureOf(answers[names.indexOf(name)]!, key)
    const top = (name: string) => best(answers[names.indexOf(name)]!)
    return {
      title: `Reading ${count} pipes at once`,
      text:
        `${count} children that wait for each other write ${mebibytes} MiB each. MiB per second, all together, from the first
write to the last read; the processor time of the host in that time; when half of everything is read, what was read of the
pipe that is last and of the one that is first, as shares of the mean (0 is starved, 2 is done); and the longest time that
any pipe waited for its next chunk. Medians.`,
      columns: ["", "MiB/s", "of child_process", "host's CPU, ms", "last", "first", "longest wait, ms"],
      rows: names.map((name) => [
        name,
        of(name, "rate").toFixed(0),
        share(of(name, "rate"), of("child_process", "rate")),
        ms(of(name, "cpu")),
        of(name, "least").toFixed(2),
        of(name, "most").toFixed(2),
        ms(of(name, "pause"))
      ]),
      figures: {
        "50 pipes, launch / child_process": top("Treeline launch") / top("child_process")
      }
    }
  }
}
