/** Addresses as programs write them. */
import * as Web from "./Web.ts"

/** Where a server is reached that listens everywhere. */
const reachable: Readonly<Record<string, string>> = {
  "0.0.0.0": "127.0.0.1",
  "*": "127.0.0.1",
  "": "127.0.0.1",
  "::": "::1"
}

const defaultPorts: Readonly<Record<string, number>> = { "http:": 80, "ws:": 80, "https:": 443, "wss:": 443 }

interface Parsed {
  readonly host: string
  readonly port: number
}

const checked = (host: string, port: number): Parsed | undefined => {
  const bare = host.replace(/^\[|\]$/g, "")
  return Number.isSafeInteger(port) && port >= 1 && port <= 65_535 && !/[\s/@]/.test(bare)
    ? { host: reachable[bare] ?? bare, port }
    : undefined
}

const parseUrl = (text: string): Parsed | undefined => {
  try {
    const url = Web.parseUrl(text)
    return checked(url.hostname, url.port === "" ? defaultPorts[url.protocol] ?? 0 : Number(url.port))
  } catch {
    return undefined
  }
}

/**
 * The host and port of a URL, of `host:port`, `[host]:port`, `:port` or `port`; undefined where there is none. A host that
 * means every address of the machine becomes one of its own.
 */
export const parse = (text: string): Parsed | undefined => {
  const trimmed = text.trim()
  if (/^[a-z][a-z0-9+.-]*:\/\//i.test(trimmed)) return parseUrl(trimmed)
  const match = /^(?:(\[[^\]]*\]|[^\s:[\]]*):)?(\d{1,5})$/.exec(trimmed)
  return match === null ? undefined : checked(match[1] ?? "", Number(match[2]))
}
