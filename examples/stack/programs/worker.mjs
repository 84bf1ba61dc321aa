// The worker: `worker.mjs PORT`. It asks the web server again and again, and says `connected` at its first answer. When it
// is asked to end it finishes what it does.
const [port] = process.argv.slice(2)
const ending = new AbortController()
process.on("SIGTERM", () => ending.abort())

let asked = 0
while (!ending.signal.aborted) {
  await (await fetch(`http://127.0.0.1:${port}/`)).text()
  if (asked++ === 0) console.log("connected")
  await new Promise((resolve) => setTimeout(resolve, 50))
}
