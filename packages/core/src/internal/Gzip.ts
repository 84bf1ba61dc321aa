/** Compression by what every runtime has: streamed, with a checksum and the length at the end (RFC 1952, 2.3.1). */
import * as Channel from "effect/Channel"
import * as Stream from "effect/Stream"
import * as Web from "./Web.ts"

export const compress = <E, R>(self: Stream.Stream<Uint8Array, E, R>): Stream.Stream<Uint8Array, E, R> =>
  Stream.pipeThroughChannel(
    self,
    Channel.fromTransformStream<E, Uint8Array, Uint8Array, never>({
      evaluate: Web.gzip,
      onError: (error) => {
        throw error
      }
    })
  )

/** Fails with `onError` of what is no gzip, was altered, or ends too early. */
export const decompress = <E, R, E2>(
  self: Stream.Stream<Uint8Array, E, R>,
  onError: (error: unknown) => E2
): Stream.Stream<Uint8Array, E | E2, R> =>
  Stream.pipeThroughChannel(
    self,
    Channel.fromTransformStream<E, Uint8Array, Uint8Array, E2>({ evaluate: Web.gunzip, onError })
  )
