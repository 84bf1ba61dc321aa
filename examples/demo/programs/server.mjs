// A small web server, and under it a worker, a helper that ignores SIGTERM, and a daemon.
// Each of them reports its own pid as one line of JSON on standard output.
import { spawn } from "node:child_process"
import { createServer } from "node:http"
import { fileURLToPath } from "node:url"

const program = (name) => fileURLToPath(new URL(name, import.meta.url))
const start = (file, ...args) => spawn(file, args, { stdio: ["ignore", "inherit", "ignore"] })

let answered = 0
const server = createServer((request, response) => {
  answered++
  if (request.url === "/finish") response.end(`goodbye, ${answered} requests answered`, () => process.exit(0))
  else response.end(`hello from pid ${process.pid}`)
})
process.on("SIGTERM", () => process.exit(0))

server.listen(0, "127.0.0.1", () => {
  console.log(JSON.stringify({ name: "web server", pid: process.pid, port: server.address().port }))
  start("sh", program("worker.sh"))
  start("sh", program("stubborn.sh"))
  start(process.execPath, program("daemonize.mjs"))
})

// Whatever happens to the demo, nothing stays for ever.
setTimeout(() => process.exit(0), 60_000)
