/** What every runtime has of the web's own interfaces, so that core is bound to the types of none. */

/** See https://url.spec.whatwg.org. */
export interface Url {
  readonly protocol: string
  readonly origin: string
  readonly hostname: string
  readonly port: string
  readonly pathname: string
}

/** See https://encoding.spec.whatwg.org. */
export interface TextEncoder {
  readonly encode: (text: string) => Uint8Array<ArrayBuffer>
}

/** See https://encoding.spec.whatwg.org. */
export interface TextDecoder {
  readonly decode: (bytes: Uint8Array, options: { readonly stream: boolean }) => string
}

/**
 * See https://compression.spec.whatwg.org. Effect takes it by the type that the runtime has for it, which core does not
 * know; `never` fits them all.
 */
export type Transform = never

const web = globalThis as unknown as {
  readonly URL: new(url: string) => Url
  readonly TextEncoder: new() => TextEncoder
  readonly TextDecoder: new(label: string, options: { readonly ignoreBOM: boolean }) => TextDecoder
  readonly CompressionStream: new(format: string) => Transform
  readonly DecompressionStream: new(format: string) => Transform
}

/** Throws where the text is no absolute URL. */
export const parseUrl = (url: string): Url => new web.URL(url)

/** For UTF-8. */
export const textEncoder = (): TextEncoder => new web.TextEncoder()

/** For UTF-8; a byte order mark at the start is dropped unless `ignoreBOM`. */
export const textDecoder = (options: { readonly ignoreBOM: boolean } = { ignoreBOM: false }): TextDecoder =>
  new web.TextDecoder("utf-8", options)

export const gzip = (): Transform => new web.CompressionStream("gzip")

export const gunzip = (): Transform => new web.DecompressionStream("gzip")
