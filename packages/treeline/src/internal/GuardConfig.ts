/** What `treeline guard` is asked to run, as it is read from the configuration descriptor. */
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import * as SchemaIssue from "effect/SchemaIssue"

const Stdio = Schema.NullOr(Schema.Literals(["inherit", "devnull"]))

export const GuardConfig = Schema.Struct({
  command: Schema.NonEmptyArray(Schema.String),
  popen_kwargs: Schema.optionalKey(Schema.NullOr(Schema.Struct({
    cwd: Schema.optionalKey(Schema.NullOr(Schema.String)),
    /** The whole environment of the program; null or nothing for the guard's own. */
    env: Schema.optionalKey(Schema.NullOr(Schema.Record(Schema.String, Schema.String))),
    stdin: Schema.optionalKey(Stdio),
    stdout: Schema.optionalKey(Stdio),
    stderr: Schema.optionalKey(Stdio)
  })))
})
export type GuardConfig = typeof GuardConfig.Type

/** How the program is started is the guard's business: these would break what it promises. */
const lifecycleOwned = ["close_fds", "pass_fds", "preexec_fn", "process_group", "start_new_session"]

/** What each field must be; the value itself is never shown, because it may be secret. */
const expectations: Readonly<Record<string, string>> = {
  "": "a JSON object with \"command\" and, if wanted, \"popen_kwargs\"",
  command: "a list of strings with the program first",
  popen_kwargs: "an object",
  "popen_kwargs.cwd": "a string",
  "popen_kwargs.env": "an object of strings",
  "popen_kwargs.stdin": "\"inherit\" or \"devnull\"",
  "popen_kwargs.stdout": "\"inherit\" or \"devnull\"",
  "popen_kwargs.stderr": "\"inherit\" or \"devnull\""
}

/** The field that an issue is about, at most three names deep: deeper ones say nothing more. */
const describe = (path: ReadonlyArray<PropertyKey>): string => {
  const names = path.map(String)
  for (let length = names.length; length > 0; length--) {
    const field = names.slice(0, length).join(".")
    const expected = expectations[field]
    if (expected !== undefined && length === names.length) return `${field} must be ${expected}`
    if (expected !== undefined && (field === "command" || field === "popen_kwargs.env")) {
      return `${field} must be ${expected}`
    }
    if (expected !== undefined) return `${names.join(".")} is not an option of the guard`
  }
  return names.length === 0 ? `the configuration must be ${expectations[""]}` : `${names[0]} is no field of the guard`
}

const fieldsOf = (value: unknown): Readonly<Record<string, unknown>> =>
  typeof value === "object" && value !== null ? value as Record<string, unknown> : {}

const decode = Schema.decodeUnknownResult(GuardConfig)

/** The configuration, or what is wrong with it in plain words that hold no value of it. */
export const parse = (text: string): Result.Result<GuardConfig, string> => {
  let json: unknown
  try {
    json = JSON.parse(text)
  } catch {
    return Result.fail(text === "" ? "the configuration is empty" : "the configuration is not JSON")
  }
  const owned = lifecycleOwned.find((name) => name in fieldsOf(fieldsOf(json)["popen_kwargs"]))
  if (owned !== undefined) return Result.fail(`popen_kwargs.${owned} is set by the guard and can't be overridden`)
  return Result.mapError(
    decode(json, { onExcessProperty: "error" }),
    ({ issue }) =>
      describe(
        SchemaIssue.makeFormatterStandardSchemaV1()(issue).issues[0]?.path?.map((part) =>
          typeof part === "object" ? part.key : part
        ) ?? []
      )
  )
}
