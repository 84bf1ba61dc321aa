/**
 * A host that holds memory: launches `true` by one contender and prints the medians as JSON. Arguments: MiB of buffers,
 * rounds, the contender's place in the list. One contender has the host to itself, because a fork leaves page tables
 * behind that whoever comes next pays for.
 */
import { performance } from "node:perf_hooks"
import { all } from "./Contenders.ts"
import { measure } from "./questions/Launch.ts"
import { median } from "./Report.ts"

const [mebibytes, rounds, place] = process.argv.slice(2).map(Number) as [number, number, number]
const chunk = 16 * 1024 * 1024
// Native memory, which fork has to copy page tables for; what V8 itself holds is left out of forks.
const ballast = Array.from({ length: mebibytes / 16 }, () => Buffer.alloc(chunk, 1))

const contender = all()[place]!
/** At most so many launches, for at most so many ms: one that takes 100 ms has shown in 3 s what it can. */
const whileTime = (count: number, within: number) => {
  const endsAt = performance.now() + within
  return () => count-- > 0 && performance.now() < endsAt
}

// A service has long been warm when it matters.
for (const more = whileTime(60, 3000); more();) await measure(contender)
const answers: Array<Awaited<ReturnType<typeof measure>>> = []
for (let round = 0; round < rounds; round++) answers.push(await measure(contender))

/** Launches per second, 16 at a time. */
const rateOf = async (more: () => boolean): Promise<number> => {
  const startedAt = performance.now()
  let done = 0
  await Promise.all(Array.from({ length: 16 }, async () => {
    for (; more(); done++) await contender.run("true", [], () => {})
  }))
  return done / ((performance.now() - startedAt) / 1000)
}
// As many at once take other ways through the code than one.
await rateOf(whileTime(1000, 1000))
const rate = await rateOf(whileTime(400, 3000))

await contender.dispose()
console.log(JSON.stringify({
  name: contender.name,
  running: median(answers.map((answer) => answer.running)),
  ended: median(answers.map((answer) => answer.ended)),
  busy: median(answers.map((answer) => answer.busy)),
  rate,
  held: ballast.length * chunk
}))
process.exit(0)
