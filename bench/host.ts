/**
 * A host to be killed: launches `COUNT` quiet trees through one contender, says what it has measured, and waits.
 *
 * Arguments: name of the contender, count, report for the pids.
 */
import { performance } from "node:perf_hooks"
import { all } from "./Contenders.ts"
import { quiet } from "./Trees.ts"

const [name, count, report] = process.argv.slice(2) as [string, string, string]
const contender = all().find((contender) => contender.name === name)!
const group = await contender.open(5000)
const launches: Array<number> = []
for (let index = 0; index < Number(count); index++) {
  const startedAt = performance.now()
  await group.launch("sh", ["-c", quiet.script, "sh", report])
  launches.push(performance.now() - startedAt)
}
console.log(JSON.stringify(launches))
setTimeout(() => {}, 60_000)
