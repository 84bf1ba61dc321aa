// Writes packages/treeline/schema/sidecar.schema.json from the Schemas of the sidecar's protocol.
import * as JsonSchema from "effect/JsonSchema"
import * as Schema from "effect/Schema"
import fs from "node:fs"
import path from "node:path"
import { SidecarProtocol } from "treeline"

/** The published file. */
export const file = path.resolve(import.meta.dirname, "../packages/treeline/schema/sidecar.schema.json")

/** What is said, by who says it; a line is either of them. */
const Message = Schema.Union([
  SidecarProtocol.Request.annotate({ identifier: "ClientMessage" }),
  SidecarProtocol.ServerMessage.annotate({ identifier: "SidecarMessage" })
]).annotate({
  title: `A line of the treeline sidecar protocol, version ${SidecarProtocol.protocol}`
})

/** Its text, in draft-07, as that of the configuration. */
export const render = (): string => {
  const document = JsonSchema.toDocumentDraft07(Schema.toJsonSchemaDocument(Message, { onExcessProperty: "error" }))
  const whole = {
    $schema: JsonSchema.META_SCHEMA_URI_DRAFT_07,
    ...document.schema,
    definitions: document.definitions
  }
  return `${JSON.stringify(whole, null, 2)}\n`
}

if (import.meta.main) fs.writeFileSync(file, render())
