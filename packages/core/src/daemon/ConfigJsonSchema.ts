/** The configuration as JSON Schema, for editors and for other programs. */
import * as JsonSchema from "effect/JsonSchema"
import * as Schema from "effect/Schema"
import * as ConfigPath from "./ConfigPath.ts"
import { Config } from "./ServiceConfig.ts"

/** What the Schema says of decoded values in an annotation, as JSON Schema says it; and each alternative only once. */
const finish = (schema: unknown): unknown => {
  if (Array.isArray(schema)) return schema.map(finish)
  if (!ConfigPath.isTree(schema)) return schema
  const { exactlyOneOf, ...others } = schema
  const finished = Object.fromEntries(Object.entries(others).map(([name, value]) => [name, finish(value)]))
  if (Array.isArray(finished["anyOf"])) {
    const seen = new Map(finished["anyOf"].map((item: unknown) => [JSON.stringify(item), item]))
    finished["anyOf"] = [...seen.values()]
  }
  return Array.isArray(exactlyOneOf)
    ? { ...finished, oneOf: exactlyOneOf.map((name: unknown) => ({ required: [name] })) }
    : finished
}

/**
 * The document, in draft-07, which editors know best. What depends on several services, such as the names in `dependsOn`,
 * is checked by `ConfigLoad.check` only.
 *
 * @example
 * ```ts
 * import { ConfigJsonSchema } from "@treeline/core/daemon"
 * import { strictEqual } from "node:assert"
 *
 * strictEqual(ConfigJsonSchema.make()["title"], "Treeline configuration")
 * ```
 */
export const make = (): Readonly<Record<string, unknown>> => {
  const document = JsonSchema.toDocumentDraft07(
    Schema.toJsonSchemaDocument(Config, {
      onExcessProperty: "error",
      includeAnnotationKey: (key) => key === "exactlyOneOf"
    })
  )
  const definitions = Object.keys(document.definitions).length === 0 ? {} : { definitions: document.definitions }
  return finish({
    $schema: JsonSchema.META_SCHEMA_URI_DRAFT_07,
    ...document.schema,
    ...definitions
  }) as Readonly<Record<string, unknown>>
}
