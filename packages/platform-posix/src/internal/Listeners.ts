/**
 * Who listens, by /proc (proc(5)): the tables of the network tell the inode of a listening socket, and the descriptors of
 * a process tell which inodes it holds.
 *
 * The tables are dear: the kernel walks its whole hash of connections for each read (5 ms and more on a machine with
 * some memory). So they are read by Node's threads, and a listener that was found once is asked for directly.
 */
import { type Address, format, type Network } from "@treeline/core/Network"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as fs from "node:fs"
import * as net from "node:net"
import * as os from "node:os"
import * as ProcTable from "./ProcTable.ts"

/** TCP_LISTEN of linux/tcp_states.h. */
const listening = "0A"

/** __SO_ACCEPTCON of linux/net.h, in the flags of a Unix socket. */
const acceptsConnections = 0x1_0000

/** The 16 bytes of an IPv6 address, which `net.isIPv6` has accepted; a zone (`%eth0`) is no part of it. */
const parseIPv6 = (address: string): Uint8Array => {
  // An IPv4 address at the end stands for the last two groups.
  const text = address.split("%", 1)[0]!.replace(/(\d+)\.(\d+)\.(\d+)\.(\d+)$/, (_, ...parts) => {
    const [a, b, c, d] = parts.slice(0, 4).map(Number) as [number, number, number, number]
    return `${(a * 256 + b).toString(16)}:${(c * 256 + d).toString(16)}`
  })
  const [head = [], tail = []] = text.split("::").map((half) => half === "" ? [] : half.split(":"))
  const groups = text.includes("::")
    ? [...head, ...Array<string>(8 - head.length - tail.length).fill("0"), ...tail]
    : head
  return Uint8Array.from(groups.flatMap((group) => {
    const value = Number.parseInt(group, 16)
    return [value >> 8, value & 0xff]
  }))
}

const parseIPv4 = (address: string): Uint8Array => Uint8Array.from(address.split(".").map(Number))

/** As the tables print it: words of four bytes in the byte order of the machine. */
const hexOf = (bytes: Uint8Array): string => {
  const words: Array<string> = []
  for (let index = 0; index < bytes.length; index += 4) {
    const word = Buffer.from(bytes.subarray(index, index + 4))
    if (os.endianness() === "LE") word.reverse()
    words.push(word.toString("hex"))
  }
  return words.join("").toUpperCase()
}

const mapped = (ipv4: Uint8Array): Uint8Array => Uint8Array.of(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, ...ipv4)

/** The IPv4 address in a mapped one. */
const unmap = (ipv6: Uint8Array): Uint8Array | undefined =>
  ipv6.subarray(0, 10).every((byte) => byte === 0) && ipv6[10] === 0xff && ipv6[11] === 0xff
    ? ipv6.subarray(12)
    : undefined

/** A connection to "any" address goes to this machine (ip(7)). */
const isAny = (bytes: Uint8Array): boolean => bytes.every((byte) => byte === 0)

const isLoopback = (bytes: Uint8Array): boolean =>
  bytes.length === 4 ? bytes[0] === 127 : bytes.subarray(0, 15).every((byte) => byte === 0) && bytes[15] === 1

/** The addresses of this machine that a host stands for; none for another machine, and for names but `localhost`. */
const localAddresses = (host: string): ReadonlyArray<Uint8Array> => {
  if (host === "localhost") return [parseIPv4("127.0.0.1"), parseIPv6("::1")]
  const kind = net.isIP(host)
  if (kind === 0) return []
  const given = kind === 4 ? parseIPv4(host) : parseIPv6(host)
  const bytes = (kind === 6 ? unmap(given) : undefined) ?? given
  if (isAny(bytes)) return [parseIPv4("127.0.0.1"), parseIPv6("::1")]
  if (isLoopback(bytes)) return [bytes]
  const hex = hexOf(bytes)
  const own = Object.values(os.networkInterfaces()).flatMap((addresses) => addresses ?? [])
  return own.some(({ address, family }) => hexOf(family === "IPv4" ? parseIPv4(address) : parseIPv6(address)) === hex)
    ? [bytes]
    : []
}

/**
 * What a listener may be bound to so that a connection to the address reaches it, in the order in which the kernel
 * prefers them: the address itself, then any of its family, then any of IPv6 for IPv4.
 */
const boundTo = (bytes: Uint8Array): ReadonlyArray<ReadonlyArray<string>> =>
  bytes.length === 4
    ? [[hexOf(bytes), hexOf(mapped(bytes))], [hexOf(new Uint8Array(4))], [hexOf(new Uint8Array(16))]]
    : [[hexOf(bytes)], [hexOf(new Uint8Array(16))]]

// A table may be missing, such as tcp6 where IPv6 is switched off.
const readTable = (name: string): Promise<string> =>
  fs.promises.readFile(`/proc/self/net/${name}`, "latin1").catch(() => "")

/** The listening sockets of one port in the text of net/tcp or net/tcp6: the address that they are bound to, and the inode. */
export const parseTcp = (
  text: string,
  port: number
): ReadonlyArray<{ readonly bound: string; readonly inode: string }> => {
  const hex = port.toString(16).toUpperCase().padStart(4, "0")
  const found: Array<{ readonly bound: string; readonly inode: string }> = []
  const row = new RegExp(`^ *\\d+: ([0-9A-F]+):${hex} [0-9A-F]+:[0-9A-F]{4} ${listening} (.*)$`, "gm")
  for (const [, bound, rest] of text.matchAll(row)) {
    // tx:rx queues, timer:when, retransmits, uid, timeout, inode
    found.push({ bound: bound!, inode: rest!.trim().split(/\s+/)[5]! })
  }
  return found
}

/** The inodes of the listening sockets that were bound to this path, in the text of net/unix. */
export const parseUnix = (text: string, path: string): ReadonlyArray<string> => {
  const found: Array<string> = []
  for (const line of text.split("\n")) {
    if (!line.endsWith(` ${path}`)) continue
    // number: references protocol flags type state inode path
    const match = /^\S+: \S+ \S+ (\S+) \S+ \S+ +(\d+) (.*)$/.exec(line)
    if (match?.[3] === path && (Number.parseInt(match[1]!, 16) & acceptsConnections) !== 0) found.push(match[2]!)
  }
  return found
}

/** The listening sockets at an address; undefined where it is none of this machine. */
const inodesOf = async (address: Address): Promise<ReadonlyArray<string> | undefined> => {
  if ("path" in address) return parseUnix(await readTable("unix"), address.path)
  const local = localAddresses(address.host)
  if (local.length === 0) return undefined
  const tables = await Promise.all([readTable("tcp"), readTable("tcp6")])
  // Even an empty table has a heading.
  if (tables[0] === "") return undefined
  const sockets = tables.flatMap((table) => parseTcp(table, address.port))
  return local.flatMap((bytes) => {
    for (const tier of boundTo(bytes)) {
      const found = sockets.filter(({ bound }) => tier.includes(bound))
      if (found.length > 0) return found.map(({ inode }) => inode)
    }
    return []
  })
}

/** A descriptor of a process that is a listening socket. */
interface Held {
  readonly pid: number
  readonly descriptor: string
  readonly socket: string
}

const linkOf = (pid: number, descriptor: string): string | undefined => {
  try {
    return fs.readlinkSync(`/proc/${pid}/fd/${descriptor}`)
  } catch {
    return undefined
  }
}

/** The first of the sockets that a process holds; `hidden` when the host may not look. */
const heldBy = (pid: number, sockets: ReadonlySet<string>): Held | "hidden" | undefined => {
  try {
    for (const descriptor of fs.readdirSync(`/proc/${pid}/fd`)) {
      const socket = linkOf(pid, descriptor)
      if (socket !== undefined && sockets.has(socket)) return { pid, descriptor, socket }
    }
    return undefined
  } catch (error) {
    const code = error instanceof Error && "code" in error ? error.code : undefined
    return code === "EACCES" || code === "EPERM" ? "hidden" : undefined
  }
}

const everyPid = (): ReadonlyArray<number> => fs.readdirSync("/proc").map(Number).filter((pid) => pid > 0)

/** How many listeners are remembered. */
const remembered = 1024

/** Finds listeners, and remembers them. */
export class Listeners {
  private readonly known = new Map<string, Held>()

  /** See `Network.listeners`; undefined where it can't be told. */
  async find(address: Address, among?: ReadonlyArray<number>): Promise<ReadonlyArray<number> | undefined> {
    const name = format(address)
    const known = this.known.get(name)
    if (known !== undefined && among !== undefined) {
      // A socket stays bound to its address for as long as it is open.
      if (among.includes(known.pid) && linkOf(known.pid, known.descriptor) === known.socket) return [known.pid]
      this.known.delete(name)
    }
    const inodes = await inodesOf(address)
    if (inodes === undefined) return undefined
    if (inodes.length === 0) return among === undefined ? [] : undefined
    const sockets = new Set(inodes.map((inode) => `socket:[${inode}]`))
    const looked = (among ?? everyPid()).map((pid) => heldBy(pid, sockets))
    const found = looked.filter((held) => typeof held === "object")
    if (among !== undefined && found.length > 0) {
      if (this.known.size >= remembered) this.known.clear()
      this.known.set(name, found[0]!)
    }
    // Without `among` it is somebody's whom the host does not see: another user's, or of another pid namespace.
    const unseen = looked.includes("hidden") || among === undefined
    return found.length === 0 && unseen ? undefined : found.map(({ pid }) => pid)
  }
}

/** What a network tells of listeners; nothing where there is no /proc. */
export const make = (): Network["listeners"] => {
  if (!ProcTable.isAvailable()) return undefined
  const listeners = new Listeners()
  return (address, among) => Effect.map(Effect.promise(() => listeners.find(address, among)), Option.fromUndefinedOr)
}
