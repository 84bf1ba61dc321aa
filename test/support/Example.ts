/** Examples as a test runs them: without a terminal, and what they print. */
import { spawn } from "node:child_process"
import { fileURLToPath } from "node:url"
import { expect } from "vitest"

/** Runs examples/NAME/main.ts to its end. */
export const run = (name: string) =>
  new Promise<{ readonly code: number | null; readonly output: string }>((resolve) => {
    const main = fileURLToPath(new URL(`../../examples/${name}/main.ts`, import.meta.url))
    const child = spawn(process.execPath, ["--conditions=source", main], {
      stdio: ["ignore", "pipe", "inherit"],
      timeout: 45_000
    })
    let output = ""
    child.stdout.setEncoding("utf8").on("data", (text: string) => (output += text))
    child.once("close", (code) => resolve({ code, output }))
  })

/** What stands below each heading, without times and padding. */
export const sectionsOf = (output: string): ReadonlyArray<string> =>
  output.split("\n── ").slice(1).map((section) => section.replaceAll(/^ *[\d.]+ s {2}/gm, "").replaceAll(/ +/g, " "))

/** These come in this order, whatever is between them. */
export const inOrder = (text: string, ...parts: ReadonlyArray<string>): void => {
  let from = 0
  for (const part of parts) {
    const at = text.indexOf(part, from)
    expect(at, `"${part}" after "${text.slice(0, from)}" in:\n${text}`).toBeGreaterThanOrEqual(0)
    from = at + part.length
  }
}
