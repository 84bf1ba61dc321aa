/** Strings for C: an array of pointers into one block. Both must stay referenced while C uses them. */
import type * as Libc from "./Libc.ts"

export interface CStrings {
  /** The last one is null. */
  readonly pointers: BigUint64Array
  readonly block: Buffer
}

export const make = (libc: Libc.Libc, strings: ReadonlyArray<string>): CStrings => {
  const block = Buffer.from(`${strings.join("\0")}\0`)
  const pointers = new BigUint64Array(strings.length + 1)
  if (strings.length > 0) {
    const base = libc.address(block)
    let offset = 0
    for (let index = 0; index < strings.length; index++) {
      pointers[index] = base + BigInt(offset)
      offset = block.indexOf(0, offset) + 1
    }
  }
  return { pointers, block }
}

/** One string. */
export const one = (text: string): Buffer => Buffer.from(`${text}\0`)
