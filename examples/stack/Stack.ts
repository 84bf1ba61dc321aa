/** The stack: what it consists of and how each part is supervised. */
import { Child, Probe, Restart, ShutdownPlan, Supervisor } from "@treeline/core"
import { Effect } from "effect"
import { ChildProcess } from "effect/process"
import { fileURLToPath } from "node:url"

const program = (name: string, ...args: ReadonlyArray<string>) =>
  ChildProcess.make(process.execPath, [fileURLToPath(new URL(`programs/${name}`, import.meta.url)), ...args])

const get = (url: string) => Effect.tryPromise(async () => (await fetch(url)).text())

/** The address of the web server. */
export const urlOf = (port: number) => `http://127.0.0.1:${port}`

/** Makes the web server ill: it goes on running and answers that it is not well. */
export const spoil = (port: number) => get(`${urlOf(port)}/spoil`)

/** Restarts follow quickly here, so that there is something to see. */
const backoff = Restart.exponential({ first: "150 millis", jitter: 0.1 })

const web = (port: number) =>
  Child.make("web", {
    command: program("web.mjs", String(port)),
    readiness: Probe.http(`${urlOf(port)}/health`),
    liveness: Probe.liveness(Probe.http(`${urlOf(port)}/health`), { interval: "200 millis", failureThreshold: 2 }),
    restart: Restart.permanent({ backoff }),
    shutdown: ShutdownPlan.make([
      ShutdownPlan.run("GET /finish", get(`${urlOf(port)}/finish`), "1 second"),
      ShutdownPlan.signal("SIGTERM", { within: "1 second" })
    ])
  })

const worker = (port: number) =>
  Child.make("worker", {
    command: program("worker.mjs", String(port)),
    dependsOn: ["web"],
    readiness: Probe.line("connected"),
    restart: Restart.permanent({ backoff })
  })

const job = (file: string) =>
  Child.make("job", {
    command: program("job.mjs", file),
    dependsOn: ["worker"],
    restart: Restart.transient({ backoff })
  })

/** Starts all of it: when one falls, those after it are stopped and started again with it. */
export const start = (port: number, file: string) =>
  Supervisor.start([web(port), worker(port), job(file)], { strategy: "rest_for_one" })
