/** `treeline config` and `treeline init`. */
import * as ConfigMerge from "@treeline/core/daemon/ConfigMerge"
import * as ConfigOrigin from "@treeline/core/daemon/ConfigOrigin"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import * as fs from "node:fs"
import * as path from "node:path"
import { Config, ConfigExplained, InternalError, UsageError, Written } from "../CommandReport.ts"
import * as ConfigFile from "../ConfigFile.ts"
import * as Console from "./Console.ts"
import * as Ending from "./Ending.ts"
import * as Starter from "./Starter.ts"
import * as Text from "./Text.ts"

export interface Options {
  readonly file: string | undefined
  readonly flags: ReadonlyArray<string>
  readonly explain: boolean
  readonly json: boolean
}

const print = (text: string) => Effect.promise(() => Console.print(1, text))

/** A value as one would write it, in one line. */
const valueText = (value: Schema.Json): string => {
  const text = JSON.stringify(value)
  return text.length > 60 ? `${text.slice(0, 59)}…` : text
}

/** Every value and where it came from; defaults in a weaker colour, the values of a service under its name. */
export const render = (
  file: string,
  values: ReadonlyArray<ConfigOrigin.Explained>,
  colors: boolean
): string => {
  const paint = Text.painter(colors)
  const lines = [file]
  let last = ""
  const rows = values.map(({ origin, path, value }) => {
    const [, section, name] = /^((?:services|groups|pools)\.[\w-]+|[\w$]+)\.?(.*)$/.exec(path) ?? [path, "", path]
    return { section: name === "" ? "" : section, name: name === "" ? path : name, value: valueText(value), origin }
  })
  const nameWidth = Math.min(40, Math.max(0, ...rows.map(({ name }) => name.length)))
  const valueWidth = Math.min(30, Math.max(0, ...rows.map(({ value }) => value.length)))
  for (const { name, origin, section, value } of rows) {
    if (section !== last) lines.push(...section === "" ? [""] : ["", paint(1, section)])
    last = section
    const text = `  ${name.padEnd(nameWidth)}  ${value.padEnd(valueWidth)}  ${ConfigOrigin.describe(origin)}`
    lines.push(origin._tag === "Default" ? paint(2, text) : text)
  }
  return lines.join("\n")
}

/** Prints the configuration that holds, without its secrets. */
export const config = Effect.fn("treeline config")(function*(options: Options) {
  const { config, explained, file } = yield* ConfigFile.load(options)
  if (options.json) {
    yield* print(
      options.explain
        ? Schema.encodeSync(Schema.fromJsonString(ConfigExplained))({ file, values: explained })
        : Schema.encodeSync(Schema.fromJsonString(Config))({ file, config: ConfigMerge.redact(config) })
    )
  } else if (options.explain) yield* print(render(file, explained, Console.canColor(1)))
  else yield* print(JSON.stringify(ConfigMerge.redact(config), null, 2))
  return Ending.code(0)
})

/** Writes a starter where there is no configuration yet. */
export const init = Effect.fn("treeline init")(
  function*({ format, json }: { readonly format: Starter.Format; readonly json: boolean }) {
    const file = path.resolve(Starter.fileOf[format])
    const there = ConfigFile.names.find((name) => fs.existsSync(path.join(path.dirname(file), name)))
    if (there !== undefined) {
      return yield* new UsageError({ problem: `${there} is here already; nothing was written` })
    }
    yield* Effect.try({
      // Exclusive: what came in between is not overwritten either.
      try: () => fs.writeFileSync(file, Starter.textOf[format], { flag: "wx" }),
      catch: (error) =>
        new InternalError({
          detail: `could not write ${file}: ${error instanceof Error ? error.message : String(error)}`
        })
    })
    yield* print(
      json
        ? Schema.encodeSync(Schema.fromJsonString(Written))({ file })
        : `wrote ${path.basename(file)}; "treeline config --explain" says what it means`
    )
    return Ending.code(0)
  }
)
