/** A real terminal with a shell in it, as a person uses it: tmux is the terminal, an interactive bash is the shell. */
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import * as child_process from "node:child_process"
import * as fs from "node:fs"
import { eventually } from "./Eventually.ts"
import { fixture } from "./Host.ts"
import * as Scratch from "./Scratch.ts"
import * as Command from "./TreelineCommand.ts"

const has = (program: string): boolean => child_process.spawnSync("sh", ["-c", `command -v ${program}`]).status === 0

/** Whether there is what a terminal needs here: tmux and bash. */
export const isHere = (): boolean => has("tmux") && has("bash")

export interface Terminal {
  readonly scratch: Scratch.Scratch
  /** Types keys as tmux names them: text, `Enter`, `C-c`. */
  readonly type: (...keys: ReadonlyArray<string>) => void
  /** Types a line. */
  readonly enter: (line: string) => void
  /** All that was printed and is still kept. */
  readonly screen: () => string
  /** What can be seen, with `escapes` the colours too. */
  readonly visible: (escapes?: boolean) => string
  readonly resize: (columns: number, rows: number) => void
  readonly isCursorVisible: () => boolean
  readonly awaitScreen: (text: string | RegExp) => Effect.Effect<void>
  /** Forgets all that was printed; the shell has its prompt. */
  readonly clear: Effect.Effect<void>
  /** Closes the window, as a person does with the mouse. */
  readonly close: () => void
}

/** A terminal of 80 by 24 with a shell whose prompt is `$ `, and `tl` as a short name of the command. */
export const open: Effect.Effect<Terminal, never, Scope.Scope> = Effect.gen(function*() {
  const scratch = yield* Scratch.make
  const script = (name: string, text: string) => fs.writeFileSync(scratch.file(name), text, { mode: 0o755 })
  script("tl", `#!/bin/sh\nexec ${Command.treeline.join(" ")} "$@"\n`)
  script("tree", `#!/bin/sh\nexec sh ${fixture("tree.sh")} "$1" ${scratch.report}\n`)
  // Counts interrupts, and ends with code 5 when it reads "q".
  fs.writeFileSync(
    scratch.file("counter.mjs"),
    `import * as fs from "node:fs"
let count = 0
process.on("SIGINT", () => console.log("got " + ++count))
process.stdin.on("data", (data) => { if (String(data).trim() === "q") process.exit(5) })
fs.appendFileSync(${JSON.stringify(scratch.report)}, "host " + process.ppid + "\\ncounter " + process.pid + "\\n")
console.log("ready")
`
  )
  const tmux = (...args: ReadonlyArray<string>) =>
    child_process.spawnSync("tmux", ["-S", scratch.file("tmux"), "-f", "/dev/null", ...args], {
      encoding: "utf8",
      cwd: scratch.directory,
      env: {
        ...Command.environment(scratch),
        PATH: `${scratch.directory}:${process.env["PATH"]}`,
        TERM: "xterm",
        LC_ALL: "C.UTF-8"
      }
    })
  const close = () => void tmux("kill-server")
  yield* Effect.acquireRelease(
    Effect.sync(() => tmux("new-session", "-d", "-x", "80", "-y", "24", "env 'PS1=$ ' bash --norc --noprofile -i")),
    () => Effect.sync(close)
  )
  const type = (...keys: ReadonlyArray<string>) => void tmux("send-keys", ...keys)
  const screen = () => tmux("capture-pane", "-p", "-J", "-S", "-").stdout.trimEnd()
  const awaitScreen = (text: string | RegExp) =>
    Effect.asVoid(
      eventually(
        `the screen shows ${String(text)}`,
        () => typeof text === "string" ? screen().includes(text) : text.test(screen()),
        { within: 15_000, detail: screen }
      )
    )
  yield* awaitScreen("$")
  const visible = (escapes = false) => tmux("capture-pane", "-p", ...escapes ? ["-e"] : []).stdout.trimEnd()
  const clear = Effect.gen(function*() {
    type("clear", "Enter")
    yield* eventually("the screen is empty", () => visible() === "$", { detail: visible })
    tmux("clear-history")
  })
  return {
    scratch,
    type,
    enter: (line) => type(line, "Enter"),
    screen,
    visible,
    resize: (columns, rows) => void tmux("resize-window", "-x", String(columns), "-y", String(rows)),
    isCursorVisible: () => tmux("display-message", "-p", "#{cursor_flag}").stdout.trim() === "1",
    awaitScreen,
    clear,
    close
  }
})
