/** UTF-8, by what every JavaScript runtime has; core is compiled without the types of any. */

declare const TextEncoder: new() => { readonly encode: (text: string) => Uint8Array<ArrayBuffer> }
declare const TextDecoder: new() => {
  readonly decode: (bytes: Uint8Array, options?: { readonly stream: boolean }) => string
}

const encoder = new TextEncoder()

export const encode = (text: string): Uint8Array => encoder.encode(text)

export const decodeAll = (chunks: ReadonlyArray<Uint8Array>): string => {
  const decoder = new TextDecoder()
  return chunks.map((chunk) => decoder.decode(chunk, { stream: true })).join("")
}
