/**
 * What a configuration may say: services, groups of them, pools, and the daemon that runs them. One Schema, for every
 * format and for the JSON Schema that editors use.
 *
 * Times are texts such as "5 seconds", or numbers of ms; sizes are texts such as "10 MiB", or numbers of bytes. Decoded
 * they are ms and bytes. What may be left out has its default here and nowhere else.
 */
import * as ByteSize from "effect/ByteSize"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import * as SchemaTransformation from "effect/SchemaTransformation"
import { Level } from "../Containment.ts"
import { Signal } from "../Signal.ts"

/** What an error says instead of what the Schema would. */
const expected = (what: string) => ({ expected: what, message: `expected ${what}` })

/** A timer ends at 2^31 ms, and a longer wait can't be told from none. */
const longest = 24 * 24 * 3_600_000

const unitOf = (unit: string): number => {
  if (unit === "ms" || unit.startsWith("milli")) return 1
  switch (unit[0]) {
    case "s":
      return 1000
    case "m":
      return 60_000
    case "h":
      return 3_600_000
    default:
      return 24 * 3_600_000
  }
}

const timeText = /^(\d+(?:\.\d+)?) ?(ms|millis?|milliseconds?|s|seconds?|m|min|minutes?|h|hours?|d|days?)$/u

const toMillis = (input: string | number): number => {
  if (typeof input === "number") return input
  const [, amount = "", unit = ""] = timeText.exec(input) ?? []
  return Number(amount) * unitOf(unit)
}

const fromMillis = (ms: number): string => {
  const [amount, unit] = ms % 60_000 === 0 && ms > 0
    ? [ms / 60_000, "minute"]
    : ms % 1000 === 0 && ms > 0
    ? [ms / 1000, "second"]
    : [ms, "milli"]
  return `${amount} ${unit}${amount === 1 ? "" : "s"}`
}

const expectedTime = "a time such as \"5 seconds\" or \"500 millis\", or a number of ms, of at most 24 days"

/** A time in ms; written as text, or as a number of ms. */
export const Time = Schema.Union([
  Schema.String.check(Schema.isPattern(timeText, expected(expectedTime))),
  Schema.Finite.check(Schema.isBetween({ minimum: 0, maximum: longest }, expected(expectedTime)))
]).annotate(expected(expectedTime)).pipe(
  Schema.decodeTo(
    Schema.Finite.check(Schema.isBetween({ minimum: 0, maximum: longest }, expected(expectedTime))),
    SchemaTransformation.transform<number, string | number>({ decode: toMillis, encode: fromMillis })
  )
)

const sizeText = /^\d+(\.\d+)? ?(B|[kKMGT]B|[KMGT]iB)$/u

const toBytes = (input: string | number): number =>
  typeof input === "number" ? input : Option.match(ByteSize.fromInput(input as ByteSize.Input), {
    onNone: () => Number.NaN,
    onSome: (size) => Option.getOrElse(ByteSize.toNumber(size), () => Number.NaN)
  })

const units: ReadonlyArray<readonly [bytes: number, unit: string]> = [
  [1024 ** 3, "GiB"],
  [1024 ** 2, "MiB"],
  [1024, "KiB"]
]

const fromBytes = (bytes: number): string => {
  const [size, unit] = units.find(([size]) => bytes % size === 0) ?? [1, "B"]
  return `${bytes / size} ${unit}`
}

const expectedSize = "a size such as \"10 MiB\", or a whole number of bytes above 0"

/** A size in bytes; written as text, or as a number of bytes. */
export const Size = Schema.Union([
  Schema.String.check(Schema.isPattern(sizeText, expected(expectedSize))),
  Schema.Int.check(Schema.isGreaterThan(0, expected(expectedSize)))
]).annotate(expected(expectedSize)).pipe(
  Schema.decodeTo(
    Schema.Int.check(Schema.isGreaterThan(0, expected(expectedSize))),
    SchemaTransformation.transform<number, string | number>({ decode: toBytes, encode: fromBytes })
  )
)

/** What a name of a service, a group or a pool is made of. */
export const namePattern = /^[A-Za-z0-9][A-Za-z0-9_-]*$/u

const Name = Schema.String.check(
  Schema.isPattern(namePattern, expected("a name of letters, digits, _ and -"))
)

const Text = Schema.NonEmptyString

/** Annotations for what is written: a Schema that changes its input has others for what comes of it. */
const written = <S extends Schema.Constraint>(
  schema: S,
  annotations: Schema.Annotations.Bottom<never, readonly []>
): S =>
  Schema.annotateEncoded(annotations)(
    schema as unknown as Schema.Top
  ) as unknown as S

/** A field with a default, given as it would be written. */
const or =
  <S extends Schema.Constraint>(value: S["Encoded"], description: string) =>
  (schema: S): Schema.withDecodingDefaultKey<S> =>
    Schema.withDecodingDefaultKey<S>(Effect.succeed(value) as never)(
      written(schema, { description, default: value } as Schema.Annotations.Bottom<never, readonly []>)
    )

/** A field that may be left out. */
const optional = <S extends Schema.Constraint>(description: string) => (schema: S) =>
  Schema.optionalKey(written(schema, { description }))

/** The value of a variable of the program that reads the configuration. */
export const FromVariable = Schema.Struct({
  fromEnv: Text.annotate({ description: "The variable of treeline's own environment that holds the value" })
})

/** The text of a file, without the line end at its end. */
export const FromFile = Schema.Struct({
  fromFile: Text.annotate({ description: "The file that holds the value, seen from the configuration's folder" })
})

/**
 * A text, or where a secret is to be found. What was found there is `Redacted`, and a configuration in TypeScript may
 * have such a value itself.
 */
export const Value = Schema.Union([
  Schema.String,
  FromVariable,
  FromFile,
  Schema.Redacted(Schema.String).annotate(expected("a text, {\"fromEnv\": NAME} or {\"fromFile\": PATH}"))
])
export type Value = typeof Value.Type

const Port = Schema.Int.check(
  Schema.isBetween({ minimum: 1, maximum: 65_535 }, expected("a port from 1 to 65535"))
)

const Tcp = Schema.Union([
  Port,
  Schema.Struct({ host: Text, port: Port }),
  Schema.Struct({ path: Text })
]).annotate(expected("a port from 1 to 65535, {\"host\", \"port\"} or {\"path\"}"))

const Status = Schema.Int.check(
  Schema.isBetween({ minimum: 100, maximum: 599 }, expected("a status from 100 to 599"))
)

const Http = Schema.Union([
  Text,
  Schema.Struct({
    url: Text,
    status: Schema.Struct({ min: Status, max: Status }).pipe(
      or({ min: 200, max: 299 }, "The good status codes, both ends included")
    ),
    headers: Schema.Record(Schema.String, Value).pipe(or({}, "Headers of the request")),
    body: Text.pipe(optional("A regular expression that the body has to match"))
  })
]).annotate(expected("a URL, or an object with \"url\""))

const asked = {
  tcp: Tcp.pipe(optional("A connection to this port or address, served by the service itself")),
  http: Http.pipe(optional("A GET request with a good answer")),
  exec: Schema.Array(Text).check(Schema.isMinLength(1, expected("a program and its arguments"))).pipe(
    optional("A program and its arguments that exit with 0; in the folder and environment of the service")
  )
}

const kinds = { readiness: ["line", "fd", "tcp", "http", "exec"], liveness: ["tcp", "http", "exec"] } as const

/** One way to ask, and no more. The JSON Schema gets it from the annotation, because it is about what was decoded. */
const oneOf = (names: ReadonlyArray<string>) => <S extends Schema.Top>(schema: S) =>
  schema.check(Schema.makeFilter<S["Type"]>(
    (self) =>
      names.filter((name) => Object.hasOwn(self as object, name)).length === 1
        ? undefined
        : `expected one of ${names.join(", ")}, and no more`
  )).pipe(
    Schema.annotateEncoded({ exactlyOneOf: names })
  ) as unknown as S

/** When a service is ready. */
export const Readiness = Schema.Struct({
  line: Schema.Union([
    Text,
    Schema.Struct({
      pattern: Text.annotate({ description: "A regular expression" }),
      stream: Schema.Literals(["stdout", "stderr", "any"]).pipe(or("any", "Where the line appears"))
    })
  ]).annotate(expected("a text, or an object with \"pattern\"")).pipe(
    optional("A line of its output that contains this text")
  ),
  fd: Schema.Int.check(Schema.isGreaterThanOrEqualTo(1)).pipe(
    optional("A descriptor on which it writes a newline (s6's notification-fd)")
  ),
  ...asked,
  within: Time.pipe(or("30 seconds", "The limit for all of it")),
  interval: Time.pipe(or("100 millis", "From the end of one attempt to the next")),
  timeout: Time.pipe(or("1 second", "The limit for one attempt")),
  initialDelay: Time.pipe(or(0, "Before the first attempt")),
  successThreshold: Schema.Int.check(Schema.isGreaterThanOrEqualTo(1)).pipe(or(1, "Successes in a row"))
}).pipe(oneOf(kinds.readiness))
export type Readiness = typeof Readiness.Type

/** What is asked while a service is ready. */
export const Liveness = Schema.Struct({
  ...asked,
  interval: Time.pipe(or("10 seconds", "From the end of one attempt to the next")),
  timeout: Time.pipe(or("1 second", "The limit for one attempt")),
  initialDelay: Time.pipe(optional("Before the first attempt; the interval if left out")),
  failureThreshold: Schema.Int.check(Schema.isGreaterThanOrEqualTo(1)).pipe(or(3, "Failures in a row that end it")),
  successThreshold: Schema.Int.check(Schema.isGreaterThanOrEqualTo(1)).pipe(
    or(1, "Successes in a row that make it healthy again")
  )
}).pipe(oneOf(kinds.liveness))
export type Liveness = typeof Liveness.Type

const ExitCode = Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 0xffff_ffff }))

const Code = Schema.Union([ExitCode, Signal]).annotate(
  expected("an exit code from 0 on, or a signal such as \"SIGTERM\"")
)

/** Whether and when it is started again. */
export const Restart = Schema.Struct({
  mode: Schema.Literals(["permanent", "transient", "temporary"]).pipe(
    or("permanent", "Always, unless it ended well, or never")
  ),
  successCodes: Schema.Array(Code).pipe(or([0], "The ends that are no failure")),
  permanentFailureCodes: Schema.Array(Code).pipe(or([], "The ends after which a restart is useless")),
  backoff: Schema.Struct({
    first: Time.pipe(or("200 millis", "The first wait")),
    max: Time.pipe(or("30 seconds", "The longest wait")),
    factor: Schema.Finite.check(Schema.isGreaterThanOrEqualTo(1)).pipe(
      or(2, "How many times as long each wait is as the one before")
    ),
    jitter: Schema.Finite.check(Schema.isBetween({ minimum: 0, maximum: 1 })).pipe(
      or(0.2, "The share by which each wait is spread")
    ),
    times: Schema.Int.check(Schema.isGreaterThanOrEqualTo(0)).pipe(
      optional("How many restarts in a row there are at most; without it any number")
    )
  }).pipe(or({}, "The waits before restarts")),
  resetAfter: Time.pipe(or("30 seconds", "The waits begin anew when it was ready for so long"))
})
export type Restart = typeof Restart.Type

/** One step of an end: a signal, or one of the other ways to ask. */
export const Step = Schema.Struct({
  action: Schema.Literals([...Signal.literals, "closeStdin", "interrupt", "requestClose"]).annotate({
    description: "A signal, the end of its input, a Ctrl-C, or WM_CLOSE (Windows)"
  }),
  target: Schema.Literals(["leader", "group", "tree"]).pipe(or("tree", "Who gets a signal")),
  within: Time.pipe(or("5 seconds", "How long it may take before the next step"))
})

/** How it is ended; after the last step its whole tree is killed. */
export const Shutdown = Schema.Struct({
  steps: Schema.Array(Step).pipe(
    or([{ action: "SIGTERM", within: "5 seconds" }], "The steps before the kill; none kills at once")
  ),
  cap: Time.pipe(or("5 seconds", "How long the kill may take before it is reported"))
})

export const Dependency = Schema.Union([
  Text,
  Schema.Struct({
    service: Text.annotate({ description: "A service, or a group: all of its services" }),
    until: Schema.Literals(["ready", "started", "succeeded"]).pipe(or("ready", "What has to be true of it"))
  })
]).annotate(expected("a name, or an object with \"service\""))

/** Where its output is kept. */
export const Logs = Schema.Struct({
  file: Text.annotate({ description: "The file, seen from the configuration's folder" }),
  maxSize: Size.pipe(or("10 MiB", "The file is put aside before it grows beyond this")),
  maxAge: Time.pipe(optional("The file is put aside when it is older than this; without it never")),
  keep: Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 1000 })).pipe(
    or(5, "How many files that were put aside are kept")
  ),
  timestamps: Schema.Boolean.pipe(or(true, "Whether each line begins with its time")),
  colours: Schema.Literals(["strip", "keep"]).pipe(
    or("strip", "Whether colours and other commands to a terminal stay in its lines")
  )
})
export type Logs = typeof Logs.Type

const fields = {
  command: Text.annotate({ description: "The program; with \"shell\" a line for the shell" }),
  args: Schema.Array(Schema.String).pipe(or([], "Its arguments, as they are")),
  shell: Schema.Boolean.pipe(or(false, "Whether the command is a line for the shell")),
  cwd: Text.pipe(optional("Its folder; the configuration's if left out")),
  env: Schema.Record(Schema.String, Value).pipe(or({}, "Its environment variables")),
  inheritEnv: Schema.Boolean.pipe(or(true, "Whether it has treeline's own environment as well")),
  envFile: Schema.Array(Text).pipe(or([], "Files with variables; a later one wins, and \"env\" wins over all")),
  readiness: Readiness.pipe(optional("When it is ready; without it as soon as it was launched")),
  liveness: Schema.Array(Liveness).pipe(or([], "What is asked while it is ready")),
  ports: Schema.Array(
    Schema.Union([Port, Schema.Struct({ host: Text, port: Port })]).annotate(
      expected("a port from 1 to 65535, or an object with \"host\" and \"port\"")
    )
  ).pipe(or([], "Where it listens, beside the ports of its tcp probes; it is not launched while somebody else does")),
  restart: Restart.pipe(or({}, "Whether and when it is started again")),
  shutdown: Shutdown.pipe(or({}, "How it is ended")),
  logs: Logs.pipe(optional("Where its output is kept")),
  limits: Schema.Struct({
    memory: Size.pipe(optional("Memory of its tree; beyond it the kernel ends the tree")),
    processes: Schema.Int.check(Schema.isGreaterThan(0)).pipe(optional("Processes and threads of its tree")),
    cpu: Schema.Finite.check(Schema.isGreaterThan(0)).pipe(optional("Processors, such as 0.5"))
  }).pipe(or({}, "What its tree may use; needs the containment \"sealed\"")),
  require: Level.pipe(optional("The containment without which it is not started"))
}

/** One service: a command and its policies. */
export const Service = Schema.Struct({
  ...fields,
  dependsOn: Schema.Array(Dependency).pipe(or([], "The services that have to come first")),
  significant: Schema.Boolean.pipe(or(false, "Whether its end by itself counts for supervisor.autoShutdown")),
  whenDaemonEnds: Schema.Literals(["end", "keep"]).pipe(
    or(
      "end",
      "Whether it ends with the daemon, or goes on when the daemon is restarted or dies and is found again by the next one; \"stop\" and \"down\" end it"
    )
  )
})
export type Service = typeof Service.Type

/** A service for each key, started when somebody asks for it. `{key}` in a text of it stands for the key. */
export const Pool = Schema.Struct({
  ...fields,
  startWithin: Time.pipe(or("1 minute", "The limit for a start")),
  idle: Time.pipe(optional("Ended when nobody has used it for so long; without it never")),
  capacity: Schema.Struct({
    max: Schema.Int.check(Schema.isGreaterThan(0)).annotate({ description: "How many run at once" }),
    waiting: Schema.Int.check(Schema.isGreaterThanOrEqualTo(0)).pipe(or(1000, "How many keys may wait")),
    within: Time.pipe(or("30 seconds", "How long a key may wait"))
  }).pipe(optional("How many there are at most; without it any number")),
  recycle: Schema.Struct({
    age: Time.pipe(optional("Replaced after this long")),
    uses: Schema.Int.check(Schema.isGreaterThan(0)).pipe(optional("Replaced after so many uses"))
  }).pipe(or({}, "When one is replaced although it is used"))
})
export type Pool = typeof Pool.Type

/** How services hang together. */
export const Supervision = Schema.Struct({
  strategy: Schema.Literals(["one_for_one", "one_for_all", "rest_for_one"]).pipe(
    or("one_for_one", "Which services are restarted together with one that ended")
  ),
  intensity: Schema.Struct({
    max: Schema.Int.check(Schema.isGreaterThanOrEqualTo(0)).pipe(or(5, "Restarts")),
    within: Time.pipe(or("1 minute", "Period"))
  }).pipe(or({}, "More restarts than this within this time end all services")),
  order: Schema.Literals(["dependencies", "sequence"]).pipe(
    or("dependencies", "Whether services start by what they depend on only, or also one after the other")
  ),
  autoShutdown: Schema.Literals(["never", "any", "all"]).pipe(
    or("never", "Whether the end of any, or of all, significant services ends all")
  )
})
export type Supervision = typeof Supervision.Type

/** The daemon as a program that is kept up to date: versions of it in a folder, one of which is the current one. */
export const Install = Schema.Struct({
  directory: Text.pipe(optional("The folder of its versions; install in the daemon's folder if left out")),
  program: Text.annotate({ description: "The program that is run as treeline, by its path inside a version" }),
  fetch: Schema.Struct({
    command: Text.annotate({
      description:
        "A program that fills an empty folder, in which it runs, with a version; a path is seen from the configuration's folder"
    }),
    args: Schema.Array(Schema.String).pipe(or([], "Its arguments, as they are")),
    within: Time.pipe(or("10 minutes", "How long it may take"))
  }).pipe(optional("How a version is fetched; without it there are no updates"))
})
export type Install = typeof Install.Type

/** When the managed install is updated. */
export const Update = Schema.Struct({
  enabled: Schema.Boolean.pipe(or(true, "Whether it is; asked before each step of an update")),
  first: Time.pipe(or("5 minutes", "From the start of the updater to the first update")),
  interval: Time.pipe(or("1 hour", "From one update to the next, at least 1 second")),
  jitter: Schema.Finite.check(Schema.isBetween({ minimum: 0, maximum: 1 })).pipe(
    or(0.1, "The share by which each wait is spread")
  ),
  validateWithin: Time.pipe(
    or("10 seconds", "How long the new version may take to get ready before the old one comes back")
  )
})
export type Update = typeof Update.Type

/** The process that runs the services in the background. */
export const Daemon = Schema.Struct({
  directory: Text.pipe(optional("Where its records, its socket and its logs are")),
  socket: Text.pipe(optional("The path of its control socket")),
  port: Port.pipe(optional("Where it listens for control on 127.0.0.1 instead of on a socket")),
  stopWithin: Time.pipe(or("1 minute", "How long all services together may take to end before they are killed")),
  install: Install.pipe(optional("A managed install, from which the daemon is run")),
  update: Update.pipe(or({}, "When the managed install is updated"))
})
export type Daemon = typeof Daemon.Type

/**
 * All that a configuration may say. Decode it with `onExcessProperty: "error"`: a misspelt field is an error.
 *
 * @example
 * ```ts
 * import { ServiceConfig } from "@treeline/core/daemon"
 * import { Schema } from "effect"
 * import { deepStrictEqual } from "node:assert"
 *
 * const { services } = Schema.decodeUnknownSync(ServiceConfig.Config)({
 *   services: { web: { command: "node", args: ["server.js"], readiness: { tcp: 3000, within: "5 seconds" } } }
 * })
 * deepStrictEqual([services["web"]?.readiness?.within, services["web"]?.restart.mode], [5000, "permanent"])
 * ```
 */
export const Config = Schema.Struct({
  $schema: Text.pipe(optional("The JSON Schema of this file, for editors")),
  services: Schema.Record(Name, Service).pipe(or({}, "The services, by their names")),
  groups: Schema.Record(Name, Schema.Array(Text)).pipe(
    or({}, "Names for several services, to be used in dependsOn and on the command line")
  ),
  pools: Schema.Record(Name, Pool).pipe(or({}, "The pools, by their names")),
  supervisor: Supervision.pipe(or({}, "How the services hang together")),
  daemon: Daemon.pipe(or({}, "The process that runs the services in the background"))
}).annotate({ title: "Treeline configuration" })
export type Config = typeof Config.Type

/** A configuration as it is written; for `treeline.config.ts`. */
export type Input = typeof Config.Encoded
