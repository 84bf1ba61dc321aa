import * as os from "node:os"
import { performance } from "node:perf_hooks"
import { Worker } from "node:worker_threads"

const spin = `const { workerData } = require("node:worker_threads"); while (Date.now() < workerData);`

/** What this process gets of two processors when it wants them whole, for `ms`: 1 when nobody else wants them. */
const share = async (ms: number): Promise<number> => {
  const until = Date.now() + ms
  const count = Math.min(2, os.availableParallelism())
  const before = process.cpuUsage()
  const startedAt = performance.now()
  await Promise.all(
    Array.from({ length: count }, () =>
      new Promise((resolve, reject) => {
        new Worker(spin, { eval: true, workerData: until }).once("exit", resolve).once("error", reject)
      }))
  )
  const { system, user } = process.cpuUsage(before)
  return (user + system) / 1000 / (performance.now() - startedAt) / count
}

/** Whether a figure of now says anything: waits a while for a machine that has something else to do. */
export const isCalm = async (tries: number): Promise<boolean> => {
  for (let attempt = 0; attempt < tries; attempt++) {
    if (attempt > 0) await new Promise((resolve) => setTimeout(resolve, 2000))
    if (await share(500) >= 0.75) return true
  }
  return false
}
