/** The published JSON Schema: it is what the Schema gives, and a validator that knows nothing of the Schema agrees. */
import { assert, describe, it } from "@effect/vitest"
import { ConfigSource, ServiceConfig } from "@treeline/core/daemon"
import { Ajv } from "ajv"
import { Effect, Result, Schema } from "effect"
import * as fc from "fast-check"
import * as fs from "node:fs"
import * as path from "node:path"
import * as Starter from "../../packages/treeline/src/internal/Starter.ts"
import { file, render } from "../../tools/config-schema.ts"
import { load } from "../support/Configs.ts"

const text = fs.readFileSync(file, "utf8")

const validate = new Ajv({ strict: true, strictTypes: false, strictRequired: false }).compile(JSON.parse(text))

const decode = Schema.decodeUnknownResult(ServiceConfig.Config)
const accepts = (value: unknown) => Result.isSuccess(decode(value, { onExcessProperty: "error" }))

/** A configuration that uses every field. */
const full = {
  $schema: "./node_modules/treeline/schema/treeline.schema.json",
  services: {
    web: {
      command: "node",
      args: ["a"],
      shell: false,
      cwd: "/tmp",
      env: { A: "1", B: { fromEnv: "B" }, C: { fromFile: "c" } },
      inheritEnv: false,
      envFile: [".env"],
      readiness: {
        http: { url: "http://h/", status: { min: 200, max: 204 }, headers: { A: "b" }, body: "ok" },
        within: 5
      },
      liveness: [{ tcp: { host: "h", port: 1 }, initialDelay: "1s" }, { exec: ["true"] }, { tcp: { path: "/s" } }],
      restart: {
        mode: "transient",
        successCodes: [0, "SIGTERM"],
        permanentFailureCodes: [125],
        backoff: { first: "1 ms", max: "1.5 seconds", factor: 1.5, jitter: 0, times: 3 },
        resetAfter: "1 hour"
      },
      shutdown: { steps: [{ action: "closeStdin" }, { action: "SIGINT", target: "leader", within: 0 }], cap: "1 day" },
      logs: { file: "web.log", maxSize: "1.5 GiB", maxAge: "1 day", keep: 1, timestamps: false },
      limits: { memory: 1, processes: 1, cpu: 0.5 },
      require: "tagged",
      dependsOn: ["db", { service: "all", until: "started" }],
      significant: true
    },
    db: { command: "db", readiness: { line: { pattern: "^up", stream: "stderr" } } },
    job: {
      command: "job",
      readiness: { fd: 3, timeout: "1 m", interval: "1 min", initialDelay: "2 min", successThreshold: 2 }
    }
  },
  groups: { all: ["web", "db"] },
  pools: {
    p: {
      command: "x",
      args: ["{key}"],
      idle: "5 minutes",
      capacity: { max: 1 },
      recycle: { uses: 3, age: "1 h" },
      startWithin: 9
    }
  },
  supervisor: { strategy: "rest_for_one", intensity: { max: 0, within: 1 }, order: "sequence", autoShutdown: "any" },
  daemon: { directory: "d", socket: "s", port: 1, stopWithin: "2 min" }
}

/** The paths of all values. */
const pathsOf = (value: unknown, path: ReadonlyArray<string> = []): ReadonlyArray<ReadonlyArray<string>> => [
  path,
  ...typeof value === "object" && value !== null
    ? Object.entries(value).flatMap(([name, inner]) => pathsOf(inner, [...path, name]))
    : []
]

const changed = (value: unknown, path: ReadonlyArray<string>, change: (value: unknown) => unknown): unknown => {
  const [name, ...rest] = path
  if (name === undefined) return change(value)
  const copy = (Array.isArray(value) ? [...value] : { ...value as object }) as Record<string, unknown>
  copy[name] = changed(copy[name], rest, change)
  return copy
}

describe("packages/treeline/schema/treeline.schema.json", () => {
  it("is what the Schema gives; else run `npm run config-schema`", () => {
    assert.strictEqual(text, render())
  })

  it("accepts a configuration that uses every field, the empty one, and what `treeline init` writes", () => {
    const starter = Result.getOrThrow(ConfigSource.json("starter", Starter.textOf.json)).tree
    for (const value of [full, {}, starter]) {
      assert.isTrue(validate(value), JSON.stringify(validate.errors))
      assert.isTrue(accepts(value))
    }
  })

  it.effect("accepts every example of docs/configuration.md", () =>
    Effect.gen(function*() {
      const page = fs.readFileSync(path.resolve(import.meta.dirname, "../../docs/configuration.md"), "utf8")
      const blocks = [...page.matchAll(/^```jsonc?\n([^]*?)^```$/gm)].map(([, block]) => block!)
      assert.isAbove(blocks.length, 2)
      for (const text of blocks) {
        assert.isTrue(validate(Result.getOrThrow(ConfigSource.json("example", text)).tree), text)
        yield* load({
          text,
          environment: { DB_PASSWORD: "x", API_KEY: "x" },
          files: { "/run/secrets/tls-key": "x", "/srv/.env": "" }
        })
      }
    }))

  it("any change of one value: both verdicts are the same", () => {
    const paths = pathsOf(full)
    const values = fc.constantFrom<unknown>(
      null,
      true,
      0,
      -1,
      1.5,
      99_999,
      1e12,
      "",
      "x",
      "5 seconds",
      "5 parsecs",
      "10 MiB",
      [],
      [1],
      ["x"],
      {},
      { x: 1 },
      { fromEnv: "" },
      { tcp: 80, http: "http://x" }
    )
    let refused = 0
    fc.assert(
      fc.property(fc.constantFrom(...paths), values, (path, value) => {
        const other = changed(full, path, () => value)
        const verdict = accepts(other)
        if (!verdict) refused++
        assert.strictEqual(
          validate(other),
          verdict,
          `${path.join(".")} = ${JSON.stringify(value)}: ${JSON.stringify(validate.errors)}`
        )
      }),
      { numRuns: 1500 }
    )
    assert.isAbove(refused, 300)
  })

  it("any misspelt field is refused by both", () => {
    for (const path of pathsOf(full)) {
      if (path.length === 0 || /^\d+$/.test(path.at(-1)!)) continue
      const other = changed(full, path.slice(0, -1), (value) => ({ ...value as object, [`${path.at(-1)}!`]: 1 }))
      assert.deepStrictEqual([path.join("."), validate(other), accepts(other)], [path.join("."), false, false])
    }
  })
})
