/**
 * A host that holds memory: launches `true` by every contender in turn and prints the medians as JSON. Arguments: MiB of
 * buffers, rounds.
 */
import { performance } from "node:perf_hooks"
import { all, type Contender } from "./Contenders.ts"
import { measure } from "./questions/Launch.ts"
import { interleaved, median } from "./Report.ts"

const [mebibytes, rounds] = process.argv.slice(2).map(Number) as [number, number]
const chunk = 16 * 1024 * 1024
// Native memory, which fork has to copy page tables for; what V8 itself holds is left out of forks.
const ballast = Array.from({ length: mebibytes / 16 }, () => Buffer.alloc(chunk, 1))

const contenders = all()
for (const contender of contenders) for (let round = 0; round < 5; round++) await measure(contender)
const answers = await interleaved(rounds, contenders, measure)

/** Launches per second, 16 at a time, until `total` have ended. */
const rate = async (contender: Contender, total: number): Promise<number> => {
  const startedAt = performance.now()
  let left = total
  await Promise.all(Array.from({ length: 16 }, async () => {
    while (left-- > 0) await contender.run("true", [], () => {})
  }))
  return total / ((performance.now() - startedAt) / 1000)
}
const rates: Array<number> = []
for (const contender of contenders) rates.push(await rate(contender, rounds * 4))

await Promise.all(contenders.map((contender) => contender.dispose()))
console.log(JSON.stringify(contenders.map(({ name }, at) => ({
  name,
  running: median(answers[at]!.map((answer) => answer.running)),
  ended: median(answers[at]!.map((answer) => answer.ended)),
  busy: median(answers[at]!.map((answer) => answer.busy)),
  rate: rates[at]!,
  held: ballast.length * chunk
}))))
process.exit(0)
