// Runs `treeline` in a real terminal (tmux) and writes what it looks like into docs/command.md, between its marks. Numbers
// that differ from run to run are replaced. With --show the screens are printed instead, as they are.
import child_process from "node:child_process"
import fs from "node:fs"
import os from "node:os"
import path from "node:path"

const page = path.resolve(import.meta.dirname, "../docs/command.md")
const bin = path.resolve(import.meta.dirname, "../packages/treeline/src/bin.ts")

/** A shop: its web server can be made to crash, its worker does not end when it is asked to. */
const configuration = {
  services: {
    db: {
      command: "echo 'opening the data folder'; sleep 0.4; echo 'ready for connections'; while :; do sleep 60; done",
      shell: true,
      readiness: { line: "ready for connections" },
      liveness: [{ exec: ["true"], interval: "200 millis", initialDelay: 0 }]
    },
    web: {
      command:
        "echo 'listening on port 3000'; n=0; while :; do sleep 0.9; n=$((n + 1)); echo \"GET /basket/$n 200\"; done",
      shell: true,
      readiness: { line: "listening" },
      restart: { backoff: { first: "3 seconds", jitter: 0 } },
      dependsOn: ["db"]
    },
    worker: {
      command: "trap 'echo \"one more order\"' TERM; while :; do sleep 0.2; done",
      shell: true,
      shutdown: { steps: [{ action: "SIGTERM", target: "leader", within: "30 seconds" }] },
      dependsOn: ["web"]
    },
    migrate: { command: "echo", args: ["3 tables are up to date"], restart: { mode: "transient" }, dependsOn: ["db"] }
  },
  groups: { backend: ["db", "worker"] }
}

const sleep = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms))

class Window {
  private readonly folder: string
  private readonly socket: string
  readonly columns: number
  readonly rows: number

  constructor(columns: number, rows: number) {
    this.columns = columns
    this.rows = rows
    this.folder = fs.mkdtempSync(path.join(os.tmpdir(), "screens-"))
    this.socket = path.join(this.folder, "tmux")
    fs.writeFileSync(path.join(this.folder, "treeline.json"), JSON.stringify(configuration, null, 2))
    fs.writeFileSync(
      path.join(this.folder, "treeline"),
      `#!/bin/sh\nexec ${process.execPath} --conditions=source ${bin} "$@"\n`,
      { mode: 0o755 }
    )
    this.tmux("new-session", "-d", "-x", String(columns), "-y", String(rows), "env 'PS1=$ ' bash --norc --noprofile -i")
  }

  tmux(...args: ReadonlyArray<string>): string {
    return child_process.spawnSync("tmux", ["-S", this.socket, "-f", "/dev/null", ...args], {
      encoding: "utf8",
      cwd: this.folder,
      env: { ...process.env, PATH: `${this.folder}:${process.env["PATH"]}`, TERM: "xterm-256color", LC_ALL: "C.UTF-8" }
    }).stdout
  }

  keys(...keys: ReadonlyArray<string>): void {
    this.tmux("send-keys", ...keys)
  }

  /** What can be seen. */
  screen(): string {
    return this.tmux("capture-pane", "-p").trimEnd()
  }

  async until(what: RegExp): Promise<void> {
    for (let waited = 0; !what.test(this.screen()); waited += 50) {
      if (waited > 20_000) throw new Error(`the screen does not show ${String(what)}:\n${this.screen()}`)
      await sleep(50)
    }
  }

  close(): void {
    this.tmux("kill-server")
    fs.rmSync(this.folder, { recursive: true, force: true, maxRetries: 20, retryDelay: 50 })
  }

  /** The same text for every run: pids in the order in which they appear, times and sizes that could be. */
  stable(text: string): string {
    const pids = new Map<string, string>()
    const pid = (real: string) => {
      if (!pids.has(real)) pids.set(real, String(4711 + pids.size * 7))
      return pids.get(real)!.padStart(real.length)
    }
    return text
      .replaceAll(fs.realpathSync(this.folder), "/srv/shop")
      .replaceAll(/(?<=pid |process )\d+/g, (real) => pid(real).trim())
      .replaceAll(
        /^(\w+ +(?:ready|running) +\S+ +)(\d+)(?= )/gm,
        (_, before: string, real: string) => before + pid(real)
      )
      .replaceAll(/\d+\.\d s/g, (time) => "0.8 s".padEnd(time.length))
      .replaceAll(/, (\d+)s (?=─)/g, (_, seconds: string) => `, 4s ${"─".repeat(seconds.length - 1)}`)
      .replaceAll(/( {2,})\d+s(?=$| )/gm, (all) => "4s".padStart(all.length))
      .replaceAll(/\d+\.\dM/g, (size) => "1.9M".padStart(size.length))
      .replaceAll(/( +)\d+%/g, (all) => "1%".padStart(all.length))
      .replaceAll(/ {2}0\.\ds/g, "  0.1s")
  }
}

/** The screens by their names. */
const take = async (columns: number, rows: number, stable: boolean): Promise<ReadonlyMap<string, string>> => {
  const window = new Window(columns, rows)
  const screens = new Map<string, string>()
  const keep = (name: string) =>
    screens.set(`${name} ${columns}x${rows}`, stable ? window.stable(window.screen()) : window.screen())
  try {
    await window.until(/\$/)
    window.keys("clear; treeline up", "Enter")
    await window.until(/worker +ready/)
    await window.until(/GET \/basket\/3/)
    keep("up")
    const second = child_process.spawnSync("sh", [path.join(window["folder"], "treeline"), "status"], {
      cwd: window["folder"],
      encoding: "utf8"
    })
    screens.set(
      `status ${columns}x${rows}`,
      stable ? window.stable(second.stdout.trimEnd()) : second.stdout.trimEnd() + second.stderr
    )
    const web = /^web +ready +\S+ +(\d+)/m.exec(window.screen())?.[1]
    process.kill(Number(web), "SIGKILL")
    await window.until(/web +backoff/)
    keep("crash")
    await window.until(/web +ready/)
    window.keys("C-c")
    await window.until(/waits for the end of worker/)
    await sleep(1500)
    keep("stop")
    window.keys("C-c")
    await window.until(/all have ended[^]*\$$/)
    await sleep(300)
    keep("end")
  } finally {
    window.close()
  }
  return screens
}

const begin = (name: string) => `<!-- screen ${name}, by \`npm run command-screens\`: -->`
const end = "<!-- end -->"

/** The page with these screens. */
export const render = (text: string, screens: ReadonlyMap<string, string>): string => {
  let page = text
  for (const [name, screen] of screens) {
    const from = page.indexOf(begin(name))
    if (from < 0) continue
    const to = page.indexOf(end, from)
    if (to < 0) throw new Error(`docs/command.md has lost the end of ${name}`)
    page = `${page.slice(0, from)}${begin(name)}\n\n\`\`\`\n${screen}\n\`\`\`\n\n${page.slice(to)}`
  }
  return page
}

if (import.meta.main) {
  const show = process.argv.includes("--show")
  for (const [columns, rows] of [[100, 30], [80, 24]] as const) {
    const screens = await take(columns, rows, !show)
    if (show) { for (const [name, screen] of screens) console.log(`=== ${name}\n${screen}\n`) }
    else fs.writeFileSync(page, render(fs.readFileSync(page, "utf8"), screens))
  }
}
