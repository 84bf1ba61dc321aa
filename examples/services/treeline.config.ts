/**
 * PostgreSQL, Redis, a web server that uses both, and nginx in front of it.
 *
 * Nothing is written outside of one folder, and no port is taken that is in use (see Place.ts).
 */
import * as fs from "node:fs"
import * as path from "node:path"
import { fileURLToPath } from "node:url"
import type { ServiceConfig } from "treeline/daemon"
import * as Nginx from "./Nginx.ts"
import * as Place from "./Place.ts"
import { asNobody, find, folderOfNobody } from "./Programs.ts"

/** A database that was begun and not finished is thrown away, one that is there is used. */
const createDatabase = `
test -d data && exit 0
rm -rf data.new
"$1" --pgdata data.new --username app --auth trust --locale C --encoding UTF8 --no-sync >/dev/null && mv data.new data
`

export default async (): Promise<ServiceConfig.Input> => {
  const { folder, greeting, ports } = await Place.open()
  const db = folderOfNobody(path.join(folder, "db"))
  const cache = folderOfNobody(path.join(folder, "cache"))
  const proxy = folderOfNobody(path.join(folder, "proxy"))
  const web = `127.0.0.1:${ports.web}`
  const site = `127.0.0.1:${ports.proxy}`
  const nginxConf = path.join(folder, "nginx.conf")
  fs.writeFileSync(nginxConf, Nginx.configuration(site, web))
  const logs = (name: string) => ({ file: path.join(folder, "logs", `${name}.log`) })

  return {
    // Of the process that runs them: its records, and the socket on which the other commands find it.
    daemon: { directory: path.join(folder, "treeline") },

    services: {
      setup: {
        ...asNobody("sh", ["-c", createDatabase, "setup", find("initdb")]),
        cwd: db,
        restart: { mode: "transient", backoff: { times: 2 } },
        logs: logs("setup")
      },

      db: {
        // It has no port: who may open its socket is whoever may enter its folder.
        // And what a failure of the machine would lose is not missed: it is an example.
        ...asNobody(find("postgres"), ["-D", "data", "-k", db, "-c", "listen_addresses=", "-c", "fsync=off"]),
        cwd: db,
        dependsOn: [{ service: "setup", until: "succeeded" }],
        readiness: { line: "database system is ready to accept connections", within: "1 minute" },
        liveness: [{
          exec: [find("pg_isready"), "--quiet", "--host", db, "--username", "app", "--dbname", "postgres"],
          interval: "2 seconds",
          timeout: "2 seconds"
        }],
        // Its "fast shutdown": it disconnects its clients, writes everything down and ends.
        shutdown: { steps: [{ action: "SIGINT", target: "leader", within: "10 seconds" }] },
        logs: logs("db")
      },

      cache: {
        ...asNobody(find("redis-server"), ["--bind", "127.0.0.1", "--port", `${ports.cache}`, "--save", ""]),
        cwd: cache,
        readiness: { tcp: ports.cache },
        shutdown: { steps: [{ action: "SIGTERM", target: "leader", within: "5 seconds" }] },
        logs: logs("cache")
      },

      web: {
        command: process.execPath,
        args: [fileURLToPath(new URL("web.ts", import.meta.url))],
        env: { GREETING: greeting, PORT: `${ports.web}`, DB_FOLDER: db, CACHE_PORT: `${ports.cache}` },
        dependsOn: ["db", "cache"],
        // Ready is who reaches its stores. Alive is who answers at all: a restart of it does not help a store that is down.
        readiness: { http: `http://${web}/ready` },
        liveness: [{ http: `http://${web}/live`, interval: "500 millis" }],
        logs: logs("web")
      },

      proxy: {
        ...asNobody(find("nginx"), ["-p", proxy, "-c", nginxConf, "-e", "stderr"]),
        // nginx has no use for it: it makes another port a change of this service.
        env: { UPSTREAM: web },
        dependsOn: ["web"],
        readiness: { http: `http://${site}/live` },
        liveness: [{ http: `http://${site}/proxy/live`, interval: "500 millis", timeout: "500 millis" }],
        // It finishes what it is answering.
        shutdown: { steps: [{ action: "SIGQUIT", target: "leader", within: "2 seconds" }] },
        logs: logs("proxy")
      }
    }
  }
}
