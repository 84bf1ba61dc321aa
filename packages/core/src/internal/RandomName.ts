/** Names that nobody can guess and that never come twice. */
import * as SecureRandom from "effect/crypto/SecureRandom"
import * as Effect from "effect/Effect"
import * as Tokens from "./Tokens.ts"

/** 128 bits in hex. */
export const randomName: Effect.Effect<string> = Effect.sync(() => Tokens.toHex(SecureRandom.randomBytesUnsafe(16)))
