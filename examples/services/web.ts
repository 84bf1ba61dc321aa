/**
 * A web server that counts its visits: all that ever were in PostgreSQL, those since the cache was started in Redis.
 *
 * `GET /` counts one more. `/ready` is well when both stores answer, `/live` as long as this process does.
 */
import { NodeHttpServer, NodeRedis, NodeRuntime } from "@effect/platform-node"
import { PgClient } from "@effect/sql-pg"
import { Config, Effect, Layer } from "effect"
import { HttpRouter, HttpServerResponse } from "effect/http"
import { Redis } from "effect/persistence"
import { SqlClient } from "effect/sql"
import { createServer } from "node:http"

const settings = Config.all({
  greeting: Config.String("GREETING"),
  port: Config.Port("PORT"),
  dbFolder: Config.String("DB_FOLDER"),
  cachePort: Config.Port("CACHE_PORT")
})

const routes = Effect.fn("routes")(function*(greeting: string) {
  const sql = yield* SqlClient.SqlClient
  const redis = yield* Redis.Redis
  yield* sql`CREATE TABLE IF NOT EXISTS visits (at timestamptz NOT NULL DEFAULT now())`

  const visit = Effect.gen(function*() {
    yield* sql`INSERT INTO visits DEFAULT VALUES`
    const [row] = yield* sql<{ readonly visits: number }>`SELECT count(*)::int AS visits FROM visits`
    const cached = yield* redis.send<number>("INCR", "visits")
    return yield* HttpServerResponse.json({ greeting, visits: row?.visits, cached })
  })

  const ready = Effect.all([sql`SELECT 1`, redis.send("PING")], { concurrency: "unbounded" }).pipe(
    Effect.as(HttpServerResponse.empty())
  )

  return [
    HttpRouter.route("GET", "/", visit),
    HttpRouter.route("GET", "/ready", ready),
    HttpRouter.route("GET", "/live", HttpServerResponse.empty())
  ]
})

const web = Effect.gen(function*() {
  const { cachePort, dbFolder, greeting, port } = yield* settings
  return HttpRouter.serve(HttpRouter.addAll(routes(greeting)), { disableLogger: true }).pipe(
    Layer.provide(NodeHttpServer.layer(createServer, { host: "127.0.0.1", port })),
    Layer.provide(PgClient.layer({ host: dbFolder, username: "app", database: "postgres" })),
    Layer.provide(NodeRedis.layer({ socket: { host: "127.0.0.1", port: cachePort } }))
  )
})

web.pipe(Layer.unwrap, Layer.launch, NodeRuntime.runMain)
