// Wine 8 has no bcryptprimitives.dll, and native addons written in Rust (rolldown, lightningcss) import it for the one
// function ProcessPrng. This makes a library of 1 KB that forwards the call to the same function under its older name,
// advapi32's SystemFunction036 (RtlGenRandom). It is data only: a PE32+ image of one section, its export directory.

const headers = 0x200
const section = 0x1000

/** The bytes of the library. */
export const bcryptprimitives = () => {
  const image = Buffer.alloc(0x400)
  const u16 = (at, value) => image.writeUInt16LE(value, at)
  const u32 = (at, value) => image.writeUInt32LE(value, at)
  const u64 = (at, value) => image.writeBigUInt64LE(value, at)
  const text = (at, value) => image.write(value, at, "latin1")

  text(0, "MZ")
  u32(0x3c, 0x80)
  text(0x80, "PE\0\0")

  const file = 0x84
  u16(file, 0x8664) // x64
  u16(file + 2, 1) // sections
  u16(file + 16, 240) // size of the optional header
  u16(file + 18, 0x2022) // a library, executable, aware of large addresses

  const optional = file + 20
  u16(optional, 0x20b) // PE32+
  u32(optional + 8, 0x200) // initialised data
  u64(optional + 24, 0x1_8000_0000n) // image base
  u32(optional + 32, section) // alignment in memory
  u32(optional + 36, headers) // alignment in the file
  u16(optional + 40, 6) // operating system
  u16(optional + 48, 6) // subsystem
  u32(optional + 56, 2 * section) // size of the image
  u32(optional + 60, headers)
  u16(optional + 68, 3) // console
  u16(optional + 70, 0x160) // ASLR, NX, high entropy
  u64(optional + 72, 0x10_0000n) // stack, heap: reserved and committed
  u64(optional + 80, 0x1000n)
  u64(optional + 88, 0x10_0000n)
  u64(optional + 96, 0x1000n)
  u32(optional + 108, 16) // directories
  u32(optional + 112, section) // exports: where and how long
  u32(optional + 116, 0x100)

  const table = optional + 240
  text(table, ".edata\0\0")
  u32(table + 8, 0x100)
  u32(table + 12, section)
  u32(table + 16, 0x200)
  u32(table + 20, headers)
  u32(table + 36, 0x4000_0040) // readable, initialised

  const exports = headers
  const names = { library: 0x60, function: 0x80, forward: 0x90 }
  u32(exports + 12, section + names.library)
  u32(exports + 16, 1) // first ordinal
  u32(exports + 20, 1) // functions, names
  u32(exports + 24, 1)
  u32(exports + 28, section + 0x28)
  u32(exports + 32, section + 0x2c)
  u32(exports + 36, section + 0x30)
  // An address inside of the export directory is a forwarder.
  u32(exports + 0x28, section + names.forward)
  u32(exports + 0x2c, section + names.function)
  u16(exports + 0x30, 0)
  text(exports + names.library, "bcryptprimitives.dll\0")
  text(exports + names.function, "ProcessPrng\0")
  text(exports + names.forward, "advapi32.SystemFunction036\0")
  return image
}
