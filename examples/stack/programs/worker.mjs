// The worker: `worker.mjs PORT`. It asks the web server again and again, and says `connected` at its first answer; no answer
// is no reason to end. When it is asked to end it finishes what it does.
const [port] = process.argv.slice(2)
const ending = new AbortController()
process.on("SIGTERM", () => ending.abort())

let connected = false
while (!ending.signal.aborted) {
  const answer = await fetch(`http://127.0.0.1:${port}/`).then((response) => response.text()).catch(() => undefined)
  if (answer !== undefined && !connected) {
    connected = true
    console.log("connected")
  }
  await new Promise((resolve) => setTimeout(resolve, 50))
}
