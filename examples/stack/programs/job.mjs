// A flaky job: `job.mjs FILE`. It fails twice and succeeds the third time; the file counts.
import { appendFileSync, readFileSync } from "node:fs"

const [file] = process.argv.slice(2)
appendFileSync(file, "run\n")
process.exit(readFileSync(file, "utf8").split("\n").length > 3 ? 0 : 1)
