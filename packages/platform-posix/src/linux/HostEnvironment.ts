/**
 * The environment of this process as C has it (environ(7)). A child that inherits it is given these very strings: as they
 * are, also where they are no UTF-8, and without a look at each through `process.env`, which takes 1 us a variable.
 */
import { types } from "node:util"
import * as CStrings from "./CStrings.ts"
import type * as Libc from "./Libc.ts"

/** What begins in a page of memory can be read to the end of that page; in bytes. */
const pageSize = 4096
const pointerSize = 8

/** A longer environment is handed on the other way. */
const maxPages = 16

/** Set for a moment to see whether it arrives. */
const probe = "TREELINE_ENVIRONMENT_PROBE"

export class HostEnvironment {
  private readonly libc: Libc.Libc
  /** `process.env` where that is the environment of C: a program may have put another object in its place. */
  private readonly own: typeof process.env | undefined
  private readonly start = new BigUint64Array(1)
  private readonly pointers = new BigUint64Array((maxPages * pageSize) / pointerSize)

  constructor(libc: Libc.Libc) {
    this.libc = libc
    this.own = this.isReal() && this.isUnambiguous() ? process.env : undefined
  }

  private isReal(): boolean {
    if (types.isProxy(process.env)) return false
    process.env[probe] = "1"
    const arrived = this.find(probe) !== 0n
    delete process.env[probe]
    return arrived && this.find(probe) === 0n
  }

  /** No name stands twice: which one counts is for every program to say. Only execve(2) can do that, setenv(3) replaces. */
  private isUnambiguous(): boolean {
    const count = this.read()
    if (count === undefined) return false
    const names = Array.from(this.pointers.subarray(0, count), (variable) => {
      const bytes = Buffer.alloc(Number(this.libc.strlen(variable)))
      this.libc.copy(bytes, variable, bytes.length)
      return bytes.toString("latin1").split("=", 1)[0]
    })
    return new Set(names).size === count
  }

  /** The address of the value; 0 where there is none. */
  private find(name: string): bigint {
    return BigInt(this.libc.getenv(CStrings.one(name)))
  }

  /** Reads the addresses of all variables, and says how many there are; undefined where they are too many. */
  private read(): number | undefined {
    const { libc, pointers, start } = this
    libc.copy(start, libc.environ, pointerSize)
    let from = start[0]!
    if (from === 0n) return 0 // clearenv(3)
    for (let count = 0, pages = 0; pages < maxPages; pages++) {
      const size = pageSize - Number(from % BigInt(pageSize))
      libc.copy(pointers.subarray(count), from, size)
      const end = pointers.subarray(count, count + size / pointerSize).indexOf(0n)
      if (end >= 0) return count + end
      count += size / pointerSize
      from += BigInt(size)
    }
    return undefined
  }

  /** With changes; undefined where it can't be had in this way. */
  extend(changes: Readonly<Record<string, string | undefined>>): CStrings.CStrings | undefined {
    if (this.own === undefined || process.env !== this.own) return undefined
    const count = this.read()
    if (count === undefined) return undefined
    let kept = this.pointers.subarray(0, count)
    const added: Array<string> = []
    for (const [name, value] of Object.entries(changes)) {
      const found = this.find(name)
      if (found !== 0n) {
        const variable = found - BigInt(Buffer.byteLength(name) + 1)
        kept = kept.filter((pointer) => pointer !== variable)
      }
      if (value !== undefined) added.push(`${name}=${value}`)
    }
    const { block, pointers } = CStrings.make(this.libc, added)
    const all = new BigUint64Array(kept.length + pointers.length)
    all.set(kept)
    all.set(pointers, kept.length)
    return { pointers: all, block }
  }
}
