/** UTF-8. */
import * as Web from "../../internal/Web.ts"

const encoder = Web.textEncoder()

export const encode = (text: string): Uint8Array => encoder.encode(text)

export const decodeAll = (chunks: ReadonlyArray<Uint8Array>): string => {
  const decoder = Web.textDecoder()
  return chunks.map((chunk) => decoder.decode(chunk, { stream: true })).join("")
}
