// The server of one tenant: `shop.mjs`, with TENANT and TOKEN in its environment. It keeps its orders in a file of its
// working directory, and nothing else anywhere.
// GET / tells who it is and how many orders it has, POST / adds one, GET /news tells something every 200 ms for 1.6 s.
import { appendFileSync, existsSync, readFileSync } from "node:fs"
import { createServer } from "node:http"

const { TENANT: tenant, TOKEN: token } = process.env
const orders = () => (existsSync("orders") ? readFileSync("orders", "utf8").split("\n").length - 1 : 0)

/** Tells its news, as long as somebody listens. */
const tell = (response, left) => {
  if (left === 0 || response.destroyed) return response.end()
  response.write(`${tenant}: ${left} more\n`)
  setTimeout(tell, 200, response, left - 1)
}

const server = createServer((request, response) => {
  // Every user of this machine can reach a port of 127.0.0.1.
  if (request.headers["x-token"] !== token) return response.writeHead(403).end()
  if (request.url === "/news") return tell(response, 8)
  const chunks = []
  request.on("data", (chunk) => chunks.push(chunk)).on("end", () => {
    if (request.method === "POST") appendFileSync("orders", `${Buffer.concat(chunks)}\n`)
    response.end(JSON.stringify({ tenant, pid: process.pid, orders: orders() }))
  })
})
server.listen(0, "127.0.0.1", () => console.log(`listening on http://127.0.0.1:${server.address().port}`))

process.on("SIGTERM", () => {
  server.close(() => process.exit(0))
  server.closeIdleConnections()
})

// Whatever happens to the example, nothing stays for ever.
setTimeout(() => process.exit(0), 60_000)
