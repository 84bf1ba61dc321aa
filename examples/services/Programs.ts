/** The programs of the services: where they are, and who runs them. */
import * as fs from "node:fs"
import * as path from "node:path"

/** Each program, and the Debian package that has it. */
const packages = {
  initdb: "postgresql",
  nginx: "nginx",
  pg_isready: "postgresql",
  postgres: "postgresql",
  "redis-server": "redis-server"
} as const

export type Program = keyof typeof packages

const postgresql = "/usr/lib/postgresql"

/** Debian has PostgreSQL's programs in a folder for each version, and nginx where an ordinary user does not look. */
const folders = (): ReadonlyArray<string> => {
  const versions = fs.existsSync(postgresql) ? fs.readdirSync(postgresql).map(Number).filter(Number.isFinite) : []
  return [
    ...versions.sort((a, b) => b - a).map((version) => `${postgresql}/${version}/bin`),
    ...(process.env["PATH"] ?? "").split(path.delimiter),
    "/usr/sbin"
  ]
}

const pathOf = (program: Program): string | undefined =>
  folders().map((folder) => path.join(folder, program)).find((file) => fs.existsSync(file))

/** What is not installed here, in words; undefined when nothing is missing. */
export const missing = (): string | undefined => {
  const absent = (Object.keys(packages) as ReadonlyArray<Program>).filter((program) => pathOf(program) === undefined)
  const install = [...new Set(absent.map((program) => packages[program]))].join(" ")
  return absent.length === 0 ? undefined : `not installed: ${absent.join(", ")}; on Debian: apt-get install ${install}`
}

/** Where a program is. */
export const find = (program: Program): string => {
  const file = pathOf(program)
  if (file === undefined) throw new Error(missing())
  return file
}

/** `nobody`. */
const unprivileged = "65534"

const isRoot = process.getuid?.() === 0

/**
 * A command as an account without privileges, where root starts it: PostgreSQL refuses to run as root, and the others have
 * no need to. `setpriv` replaces itself by the program, so the leader is the program.
 */
export const asNobody = (command: string, args: ReadonlyArray<string>) =>
  isRoot
    ? {
      command: "setpriv",
      args: ["--reuid", unprivileged, "--regid", unprivileged, "--clear-groups", command, ...args]
    }
    : { command, args }

/** A folder that belongs to whoever runs such a command. */
export const folderOfNobody = (folder: string): string => {
  fs.mkdirSync(folder, { recursive: true, mode: 0o700 })
  if (isRoot) fs.chownSync(folder, Number(unprivileged), Number(unprivileged))
  return folder
}
