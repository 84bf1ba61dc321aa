// Completes package-lock.json after `npm install`; run `npm run lockfill`, then commit the lock file.
//
// Tools with a native part (oxlint, dprint, ...) name one optional package for each system. A registry mirror may
// hold only those of the system that it serves. `npm install` then leaves the others out of the lock, and the next
// `npm ci` refuses: "Missing: ... from lock file". Each one left out gets a minimal entry here. npm judges it by
// `os` and `cpu` before it fetches anything, so on this system it is skipped, and on its own system npm takes it from
// the registry by name and version.
import fs from "node:fs"
import path from "node:path"

const file = path.resolve(import.meta.dirname, "../package-lock.json")
const lock = JSON.parse(fs.readFileSync(file, "utf8"))
const packages = lock.packages

/** Words in package names, and what npm calls that system. The first that matches wins. */
const systems = [
  ["openharmony", "openharmony"],
  ["android", "android"],
  ["darwin", "darwin"],
  ["win32", "win32"],
  ["windows", "win32"],
  ["win", "win32"],
  ["linux", "linux"],
  ["freebsd", "freebsd"],
  ["netbsd", "netbsd"],
  ["openbsd", "openbsd"],
  ["sunos", "sunos"],
  ["aix", "aix"]
]
const processors = ["arm64", "x64", "ia32", "arm", "riscv64", "ppc64", "s390x", "loong64", "mips64el"]

/** What a package can run on, told by the words of its name. A name that says nothing runs nowhere. */
const limitsOf = (name) => {
  const words = name.toLowerCase().split(/[^a-z0-9]+/)
  const system = systems.find(([word]) => words.includes(word))
  const processor = processors.find((word) => words.includes(word))
  const libc = words.includes("musl") ? "musl" : words.includes("glibc") || words.includes("gnu") ? "glibc" : undefined
  return {
    ...(processor === undefined ? {} : { cpu: [processor] }),
    ...(libc === undefined ? {} : { libc: [libc] }),
    os: [system?.[1] ?? "none"]
  }
}

/** Node's own look-up: a dependency may be locked beside the dependant's folder or in any folder above. */
const isLocked = (from, name) => {
  const nesting = from.split("/node_modules/")
  for (let depth = nesting.length; depth > 0; depth--) {
    if (packages[`${nesting.slice(0, depth).join("/node_modules/")}/node_modules/${name}`] !== undefined) return true
  }
  return packages[`node_modules/${name}`] !== undefined
}

const added = []
for (const [at, entry] of Object.entries(packages)) {
  for (const [name, range] of Object.entries(entry.optionalDependencies ?? {})) {
    if (isLocked(at, name)) continue
    const version = /^[~^=v]*(\d+\.\d+\.\d+\S*)$/.exec(range)?.[1]
    if (version === undefined) throw new Error(`${at} wants ${name} "${range}": no single version to lock`)
    packages[`node_modules/${name}`] = {
      version,
      ...(entry.dev ? { dev: true } : {}),
      optional: true,
      ...limitsOf(name)
    }
    added.push(`${name}@${version}`)
  }
}
lock.packages = Object.fromEntries(Object.entries(packages).sort(([a], [b]) => (a < b ? -1 : 1)))
fs.writeFileSync(file, `${JSON.stringify(lock, null, 2)}\n`)
console.log(added.length === 0 ? "lock file is complete" : `added ${added.length}: ${added.join(", ")}`)

const addresses = Object.values(lock.packages).filter((entry) => /^[a-z+]+:\/\//.test(entry.resolved ?? ""))
if (addresses.length > 0) {
  console.error(`${addresses.length} entries name a registry address: is omit-lockfile-registry-resolved set?`)
  process.exitCode = 1
}
