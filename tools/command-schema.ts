// Writes packages/treeline/schema/commands.schema.json from the Schemas of what the commands print with --json.
import { ChildEnd, ChildState, ExitStatus, PoolState, ProcessIdentity, Supervisor } from "@treeline/core"
import { HostStatus, Services } from "@treeline/core/daemon"
import { JsonSchema, Schema } from "effect"
import fs from "node:fs"
import path from "node:path"
import { CommandReport } from "treeline"

/** The published file. */
export const file = path.resolve(import.meta.dirname, "../packages/treeline/schema/commands.schema.json")

/** What each command prints: its Schema and when. */
const outputs: Readonly<Record<string, readonly [schema: Schema.Top, description: string]>> = {
  Up: [CommandReport.Up, "treeline up --json, when all has ended"],
  Status: [CommandReport.Status, "treeline status --json"],
  Operation: [CommandReport.Operation, "treeline start|stop|restart|reload|down --json"],
  Paused: [CommandReport.Paused, "treeline pause|resume --json"],
  Signal: [CommandReport.Signal, "treeline signal --json"],
  Logs: [CommandReport.Logs, "treeline logs --json"],
  LogEntry: [CommandReport.LogEntry, "each line of treeline logs --follow --json"],
  Events: [CommandReport.Events, "treeline events --json"],
  Event: [CommandReport.Event, "each line of treeline events --follow --json"],
  PoolKey: [CommandReport.PoolKey, "treeline pool ensure --json"],
  PoolKeyDown: [CommandReport.PoolKeyDown, "treeline pool shutdown --json"],
  DaemonOutcome: [CommandReport.DaemonOutcome, "treeline daemon start|stop|restart --json"],
  DaemonStatus: [CommandReport.DaemonStatus, "treeline daemon status --json"],
  DaemonVersion: [CommandReport.DaemonVersion, "treeline daemon version --json"],
  DaemonUpdate: [CommandReport.DaemonUpdate, "treeline daemon update --json"],
  DaemonBootstrap: [CommandReport.DaemonBootstrap, "treeline daemon bootstrap --json"],
  DaemonUnit: [CommandReport.DaemonUnit, "treeline daemon install --json"],
  Settings: [CommandReport.Settings, "treeline set --json"],
  SettingChange: [CommandReport.SettingChange, "treeline set KEY VALUE --json, treeline set --remove KEY --json"],
  Run: [CommandReport.Run, "treeline run --json and --report"],
  Config: [CommandReport.Config, "treeline config --json"],
  ConfigExplained: [CommandReport.ConfigExplained, "treeline config --explain --json"],
  Written: [CommandReport.Written, "treeline init --json"],
  Doctor: [CommandReport.Doctor, "treeline doctor --json"],
  Failure: [CommandReport.Failure, "stderr of every command with --json that did not do what was asked"]
}

/** What several of them hold: each is said once, under this name. Those that others hold come before them. */
const shared = {
  ExitStatus: ExitStatus.ExitStatus,
  ProcessInfo: ProcessIdentity.ProcessInfo,
  Link: ChildEnd.Link,
  ChildEnd: ChildEnd.ChildEnd,
  ChildState: ChildState.ChildState,
  KeyState: PoolState.KeyState,
  Blocking: Supervisor.Blocking,
  SupervisorEnd: Supervisor.SupervisorEnd,
  Outcome: HostStatus.Outcome,
  Report: Services.Report,
  Event: HostStatus.HostEvent
} as const

const object = (value: unknown): value is Readonly<Record<string, unknown>> =>
  typeof value === "object" && value !== null && !Array.isArray(value)

const isNumber = (value: unknown): boolean => object(value) && value["type"] === "number"
const isNoNumber = (value: unknown): boolean => JSON.stringify(value).includes("\"Infinity\"")

/** Times and sizes are numbers: what else a number of JavaScript could be never comes. Errors have their own names. */
const simple = (value: unknown): unknown => {
  if (Array.isArray(value)) return value.map(simple)
  if (!object(value)) return value
  const { anyOf, ...others } = value
  if (others["type"] === "integer") return { type: "integer" }
  if (typeof others["$ref"] === "string") {
    return { $ref: others["$ref"].replace(/Encoded$/, "").replace(/Objects_$/, "ChildStatus") }
  }
  if (others["type"] === "object") delete (others as Record<string, unknown>)["additionalProperties"]
  const plain = Object.fromEntries(Object.entries(others).map(([name, item]) => [name, simple(item)]))
  if (!Array.isArray(anyOf)) return plain
  const kinds = anyOf.some(isNumber) ? anyOf.filter((kind) => !isNoNumber(kind)) : anyOf
  return kinds.length === 1 ? { ...plain, ...simple(kinds[0]) as object } : { ...plain, anyOf: kinds.map(simple) }
}

/** The same with references to what is known by a name. */
const referring = (names: ReadonlyMap<string, string>) => {
  const refer = (value: unknown, top = false): unknown => {
    if (Array.isArray(value)) return value.map((item) => refer(item))
    if (!object(value)) return value
    const made = Object.fromEntries(Object.entries(value).map(([name, item]) => [name, refer(item)]))
    const name = top ? undefined : names.get(JSON.stringify(made))
    return name === undefined ? made : { $ref: `#/definitions/${name}` }
  }
  return refer
}

/** A document in draft-07 with a definition for each output, and for what they have in common. */
export const make = (): Readonly<Record<string, unknown>> => {
  const definitions: Record<string, unknown> = {}
  const names = new Map<string, string>()
  const refer = referring(names)
  const define = (name: string, schema: Schema.Top, description?: string) => {
    const document = JsonSchema.toDocumentDraft07(Schema.toJsonSchemaDocument(schema))
    for (const [inner, value] of Object.entries(document.definitions)) {
      const known = inner.replace(/Encoded$/, "").replace(/^Objects_$/, "ChildStatus")
      definitions[known] ??= refer(simple(value), true)
    }
    const made = refer(simple(document.schema), true) as object
    definitions[name] = description === undefined ? made : { description, ...made }
    names.set(JSON.stringify(made), name)
  }
  for (const [name, schema] of Object.entries(shared)) define(name, schema)
  for (const [name, [schema, description]] of Object.entries(outputs)) define(name, schema, description)
  return {
    $schema: JsonSchema.META_SCHEMA_URI_DRAFT_07,
    title: "What treeline prints with --json",
    description: "An object on stdout for a success, a Failure on stderr otherwise",
    anyOf: Object.keys(outputs).map((name) => ({ $ref: `#/definitions/${name}` })),
    definitions: Object.fromEntries(Object.entries(definitions).toSorted(([one], [other]) => one < other ? -1 : 1))
  }
}

/** Its text. */
export const render = (): string => `${JSON.stringify(make(), null, 2)}\n`

if (import.meta.main) fs.writeFileSync(file, render())
