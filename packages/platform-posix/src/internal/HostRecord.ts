/**
 * The ledger of a host on disk, in a folder that only the user can enter. Written with the first launch, removed when
 * the host or its guardian has ended everything. A host that finds the record of a dead one sweeps what is left.
 */
import * as fs from "node:fs"
import * as os from "node:os"
import * as path from "node:path"
import * as Ledger from "./Ledger.ts"
import * as ProcTable from "./ProcTable.ts"
import type { TagHost } from "./Tag.ts"

/** The folder of this user's records; undefined where no safe one can be had. */
export const folder = (): string | undefined => {
  const directory = path.join(os.tmpdir(), `treeline-${process.getuid?.() ?? 0}`)
  try {
    fs.mkdirSync(directory, { mode: 0o700, recursive: true })
    const stat = fs.lstatSync(directory)
    const safe = stat.isDirectory() && stat.uid === process.getuid?.() && (stat.mode & 0o077) === 0
    return safe ? directory : undefined
  } catch {
    return undefined
  }
}

/** Names one host on this boot and in this pid namespace; records of others are not ours to judge. */
const scopeName = (): string =>
  `${ProcTable.bootId().slice(0, 8) || "boot"}-${ProcTable.pidNamespace().replace(/\D/g, "") || "0"}`

const pattern = /^([0-9a-z]+-\d+)-(\d+)-(\d+)-(\d+)\.host$/

/** An open record; a failing write only means that the next host can't use it. */
export class HostRecord {
  readonly path: string
  private fd: number

  private constructor(file: string, fd: number) {
    this.path = file
    this.fd = fd
  }

  /** `instance` tells several platforms in one host apart. */
  static open(host: TagHost, instance: number): HostRecord | undefined {
    const directory = folder()
    if (directory === undefined) return undefined
    const file = path.join(directory, `${scopeName()}-${host.pid}-${host.start}-${instance}.host`)
    try {
      return new HostRecord(file, fs.openSync(file, "a", 0o600))
    } catch {
      return undefined
    }
  }

  write(lines: string): void {
    try {
      fs.writeSync(this.fd, lines)
    } catch {
      // a full disk must not stop a launch
    }
  }

  /** Replaces the record by what is true now, in one step, so that it does not grow with the number of launches. */
  rewrite(lines: string): void {
    const next = `${this.path}.new`
    try {
      fs.writeFileSync(next, lines, { mode: 0o600 })
      fs.renameSync(next, this.path)
      const fd = fs.openSync(this.path, "a")
      fs.closeSync(this.fd)
      this.fd = fd
    } catch {
      fs.rmSync(next, { force: true })
    }
  }

  /** The file stays, for the host that comes next. */
  close(): void {
    fs.closeSync(this.fd)
  }

  remove(): void {
    this.close()
    fs.rmSync(this.path, { force: true })
  }
}

/** The ledger of a record; undefined when it has gone, or is nobody's to read. */
export const read = (file: string): Ledger.Ledger | undefined => {
  try {
    return Ledger.parse(fs.readFileSync(file, "utf8"))
  } catch {
    return undefined
  }
}

/** The other records of the host that this one is of. */
export const besides = (file: string): ReadonlyArray<string> => {
  const [directory, own] = [path.dirname(file), path.basename(file)]
  const hostOf = (name: string) => pattern.exec(name)?.slice(1, 4).join("-")
  const host = hostOf(own)
  try {
    return fs.readdirSync(directory)
      .filter((name) => name !== own && host !== undefined && hostOf(name) === host)
      .map((name) => path.join(directory, name))
  } catch {
    return []
  }
}

/** The records of a dead host. */
export interface Dead {
  readonly paths: ReadonlyArray<string>
  readonly host: TagHost
  readonly ledger: Ledger.Together
  /** A guardian of it lives, and ends what is left. */
  readonly guarded: boolean
}

/** Dead hosts that have left records. A zombie is dead: where process 1 does not reap, a killed guardian stays one. */
export const ofDead = (): ReadonlyArray<Dead> => {
  const directory = folder()
  if (directory === undefined) return []
  const scope = scopeName()
  const found = new Map<string, { readonly host: TagHost; readonly paths: Array<string> }>()
  for (const name of fs.readdirSync(directory)) {
    const match = pattern.exec(name)
    if (match === null) continue
    if (match[1] !== scope) {
      // Of an earlier boot nothing can be left; of another pid namespace nothing can be told.
      if (match[1]!.split("-", 1)[0] !== scope.split("-", 1)[0]) fs.rmSync(path.join(directory, name), { force: true })
      continue
    }
    const host = { pid: Number(match[2]), start: Number(match[3]) }
    if (ProcTable.stillLives(host)) continue
    const key = `${host.pid}.${host.start}`
    const known = found.get(key)
    if (known === undefined) found.set(key, { host, paths: [path.join(directory, name)] })
    else known.paths.push(path.join(directory, name))
  }
  return [...found.values()].flatMap(({ host, paths }) => {
    const ledgers = paths.flatMap((file) => read(file) ?? [])
    if (ledgers.length === 0) return []
    const ledger = Ledger.together(ledgers)
    return [{ paths, host, ledger, guarded: ledger.guardians.some(ProcTable.stillLives) }]
  })
}
