/**
 * What a service tells its manager by sd_notify(3): that it is ready, ending, or still alive. A datagram to a Unix socket,
 * which Node itself has not, so it takes native code; where that can't be had nothing is sent.
 */
import { Buffer } from "node:buffer"
import * as Libc from "./linux/Libc.ts"

/** `sun_path` of unix(7), in bytes. */
const longestPath = 108

/** The address of unix(7); undefined when the name can't be one. An `@` at its start stands for a zero byte. */
export const addressOf = (socket: string): Uint8Array | undefined => {
  const isAbstract = socket.startsWith("@")
  if (!isAbstract && !socket.startsWith("/")) return undefined
  const name = Buffer.from(isAbstract ? `\0${socket.slice(1)}` : `${socket}\0`)
  if (name.length < 2 || name.length > longestPath) return undefined
  const address = Buffer.alloc(2 + name.length)
  address.writeUInt16LE(Libc.AF_UNIX, 0)
  name.copy(address, 2)
  return address
}

/**
 * Sends a message, such as `READY=1`, to the socket that `NOTIFY_SOCKET` names. True when the system took it; never waits:
 * a manager that does not read gets none.
 *
 * @example
 * ```ts
 * import { ServiceNotify } from "@treeline/platform-posix"
 * import { strictEqual } from "node:assert"
 *
 * strictEqual(ServiceNotify.send("/no/such/socket", "READY=1"), false)
 * ```
 */
export const send = (socket: string, message: string): boolean => {
  const address = addressOf(socket)
  const libc = address === undefined ? undefined : Libc.load()
  if (address === undefined || libc === undefined || libc instanceof Error) return false
  const fd = libc.socket(Libc.AF_UNIX, Libc.DGRAM_CLOEXEC, 0)
  if (fd < 0) return false
  try {
    const bytes = Buffer.from(message)
    return libc.sendto(fd, bytes, bytes.length, Libc.MSG_DONTWAIT_NOSIGNAL, address, address.length) === bytes.length
  } finally {
    libc.close(fd)
  }
}

/** Whether messages can be sent on this system. */
export const isAvailable = (): boolean => !(Libc.load() instanceof Error)
