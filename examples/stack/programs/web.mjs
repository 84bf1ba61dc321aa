// The web server: `web.mjs PORT`. GET /health tells whether it is well; GET /spoil makes it ill; GET /finish ends it.
import { createServer } from "node:http"

let well = true
let answered = 0
const server = createServer((request, response) => {
  response.setHeader("connection", "close")
  switch (request.url) {
    case "/health":
      response.writeHead(well ? 200 : 503).end()
      break
    case "/spoil":
      well = false
      response.end()
      break
    case "/finish":
      response.end(`${answered} answered`, () => process.exit(0))
      break
    default:
      response.end(`answer ${++answered}`)
  }
})
server.listen(Number(process.argv[2]), "127.0.0.1")

// Whatever happens to the example, nothing stays for ever.
setTimeout(() => process.exit(0), 60_000)
