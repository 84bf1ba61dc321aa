/** What the world sees: `/TENANT/...` goes to the server of the tenant, which is started for it if need be. */
import { NodeHttpServer } from "@effect/platform-node"
import { Effect, Redacted, Schedule } from "effect"
import { HttpClient, HttpClientRequest, HttpServerRequest, HttpServerResponse } from "effect/http"
import { createServer } from "node:http"
import type { Tenants } from "./Tenants.ts"

/** What is about one connection and not about the message (RFC 9110, 7.6.1). */
const hopByHop = ["connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"]

/** Nobody starts a server by asking for a name that can't be a tenant's. */
const split = (url: string): { readonly tenant: string; readonly rest: string } | undefined => {
  const match = /^\/([a-z0-9-]{1,40})(\/.*)?$/.exec(url)
  return match === null ? undefined : { tenant: match[1]!, rest: match[2] ?? "/" }
}

/** A server may have died a moment ago. Who asks only to read may ask the next one (RFC 9110, 9.2.2). */
const again = { times: 2, schedule: Schedule.spaced("50 millis") }

const forward = Effect.fnUntraced(function*(tenants: Tenants, client: HttpClient.HttpClient) {
  const request = yield* HttpServerRequest.HttpServerRequest
  const target = split(request.url)
  if (target === undefined) return HttpServerResponse.empty({ status: 404 })
  let forwarded = HttpServerRequest.toClientRequest(request)
  for (const name of [...hopByHop, "host"]) forwarded = HttpClientRequest.removeHeader(forwarded, name)

  const ask = Effect.gen(function*() {
    // In the scope of the request, which ends with the last byte of the answer: as long as it answers it is not idle.
    const { endpoint, token } = yield* tenants.lease(target.tenant)
    return yield* client.execute(forwarded.pipe(
      HttpClientRequest.setUrl(endpoint.http + target.rest),
      HttpClientRequest.setHeader("x-token", Redacted.value(token))
    ))
  })
  const isRead = request.method === "GET" || request.method === "HEAD"
  const response = yield* isRead
    ? Effect.retry(ask, { ...again, while: ({ _tag }) => _tag === "HttpClientError" })
    : ask

  let answer = HttpServerResponse.fromClientResponse(response)
  for (const name of hopByHop) answer = HttpServerResponse.removeHeader(answer, name)
  return answer
})

/** Why there is no answer, as a status. */
const statusOf = (tag: string): number => tag === "CapacityExceeded" ? 503 : tag === "StartTimedOut" ? 504 : 502

/** Serves until the scope closes; tells its URL. */
export const serve = Effect.fn("Proxy.serve")(function*(tenants: Tenants) {
  const client = yield* HttpClient.HttpClient
  const server = yield* NodeHttpServer.make(createServer, { port: 0, host: "127.0.0.1" })
  const refuse = ({ _tag }: { readonly _tag: string }) =>
    Effect.succeed(HttpServerResponse.text(_tag, { status: statusOf(_tag) }))
  yield* server.serve(forward(tenants, client).pipe(Effect.catch(refuse)))
  if (server.address._tag === "UnixPathAddress") return yield* Effect.die("a port was asked for")
  return `http://127.0.0.1:${server.address.port}`
})
