/**
 * `loaded.ts` for Bun and Deno, each with its own way to start programs: launches `true` from a host that holds memory,
 * with three pipes, and prints the medians as JSON. Arguments: MiB of buffers, rounds.
 */
import process from "node:process"

const { Bun, Deno } = globalThis
const [mebibytes, rounds] = process.argv.slice(2).map(Number)
const chunk = 16 * 1024 * 1024
const ballast = Array.from({ length: mebibytes / 16 }, () => new Uint8Array(chunk).fill(1))

const drain = async (stream) => {
  let bytes = 0
  for await (const part of stream) bytes += part.length
  return bytes
}

const viaBun = async (started) => {
  const child = Bun.spawn(["true"], { stdin: "pipe", stdout: "pipe", stderr: "pipe" })
  started()
  await Promise.all([drain(child.stdout), drain(child.stderr), child.exited])
}

const viaDeno = async (started) => {
  const child = new Deno.Command("true", { stdin: "piped", stdout: "piped", stderr: "piped" }).spawn()
  started()
  await Promise.all([drain(child.stdout), drain(child.stderr), child.status])
  // The program has gone, so there may be nobody to close it for.
  await child.stdin.close().catch(() => {})
}

const run = Bun === undefined ? viaDeno : viaBun

const measure = async () => {
  const startedAt = performance.now()
  let running = Number.NaN
  await run(() => (running = performance.now() - startedAt))
  return { running, ended: performance.now() - startedAt }
}

const median = (values) => values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)]

for (let round = 0; round < 5; round++) await measure()
const answers = []
for (let round = 0; round < rounds; round++) answers.push(await measure())

const total = rounds * 4
let left = total
const startedAt = performance.now()
await Promise.all(Array.from({ length: 16 }, async () => {
  while (left-- > 0) await run(() => {})
}))
const rate = total / ((performance.now() - startedAt) / 1000)

console.log(JSON.stringify([{
  name: Bun === undefined ? "Deno.Command" : "Bun.spawn",
  running: median(answers.map((answer) => answer.running)),
  ended: median(answers.map((answer) => answer.ended)),
  busy: null,
  rate,
  held: ballast.length * chunk
}]))
process.exit(0)
