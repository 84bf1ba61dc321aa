/** Where a value of a configuration comes from. */
import * as Schema from "effect/Schema"

/**
 * A default of the Schema, a place in a file (lines and columns count from 1), a setting (`Settings`), a variable, or a
 * flag.
 */
export const Origin = Schema.TaggedUnion({
  Default: {},
  File: { file: Schema.String, line: Schema.NullOr(Schema.Int), column: Schema.NullOr(Schema.Int) },
  Setting: { file: Schema.String, key: Schema.String },
  Variable: { name: Schema.String },
  Flag: { text: Schema.String }
})
export type Origin = typeof Origin.Type

/** `treeline.json:7:15`, `settings.json`, `variable TREELINE_...`, `--set services.web.cwd`, `default`. */
export const describe = (origin: Origin): string => {
  switch (origin._tag) {
    case "Default":
      return "default"
    case "File":
      return [origin.file, origin.line, origin.column].filter((part) => part !== null).join(":")
    case "Setting":
      return "settings.json"
    case "Variable":
      return `variable ${origin.name}`
    case "Flag":
      return `--set ${origin.text}`
  }
}

/** One value of a configuration that is used, and where it came from. */
export const Explained = Schema.Struct({
  path: Schema.String,
  /** As it would be written; a secret is `<redacted>`. */
  value: Schema.Json,
  origin: Origin
})
export type Explained = typeof Explained.Type
