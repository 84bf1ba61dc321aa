// The last line of .ci/run: `N passed, N failed`, with `, N skipped` where tests were skipped.
//   node tools/ci-summary.mjs STATUS BENCH REPORT...
// STATUS is the exit status of `npm test`, and each REPORT a JSON report of vitest. What failed outside of any test (a
// check, a file that does not load, an unhandled rejection, a run without a report) has no test to be counted, so it
// counts as one failure. BENCH is the exit status of the short benchmark, which counts as one test.
// Runs on whatever Node npm runs on.
import fs from "node:fs"

const [status, bench, ...reports] = process.argv.slice(2)
let passed = 0
let failed = 0
let skipped = 0
for (const report of reports.filter((report) => fs.existsSync(report))) {
  for (const file of JSON.parse(fs.readFileSync(report, "utf8")).testResults) {
    const states = file.assertionResults.map((test) => test.status)
    passed += states.filter((state) => state === "passed").length
    const failures = states.filter((state) => state === "failed").length
    failed += failures === 0 && file.status === "failed" ? 1 : failures
    skipped += states.filter((state) => state !== "passed" && state !== "failed").length
  }
}
if (failed === 0 && status !== "0") failed = 1
if (failed === 0 && passed === 0) {
  console.error("no test ran")
  failed = 1
}
if (bench === "0") passed += 1
else failed += 1
console.log(`${passed} passed, ${failed} failed${skipped === 0 ? "" : `, ${skipped} skipped`}`)
process.exitCode = failed === 0 ? 0 : 1
