// The Windows tests, on Linux with Node for Windows under Wine, on Windows as they are.
//
//   npm run test:windows                                     all of test/windows
//   npm run test:windows -- test/windows/Jobs.test.ts -t P2  arguments for `vitest run`
//   npm run test:windows -- --script FILE.ts [arguments]     a program instead, by Node for Windows
//   TREELINE_WINDOWS=skip npm test                           not now
//   TREELINE_WINDOWS_LIMIT=60 npm run test:windows           so many seconds at most (default: 480)
//
// The exit code is the one of vitest or of the program, 124 when the limit ended it. Without Wine it says so and ends
// with 0; nothing is ever installed outside of .windows/, where the first run puts the prefix, Node and koffi.
//
// Inside Wine the project is at Z:, in its folder on Linux; a program gets that as its working directory. It sees no
// environment but Windows' own, CI and TREELINE_*; TREELINE_WINE tells it where it runs. Its stdin is empty. Each run has
// a fresh system, so several may run at once; what a run leaves is ended. All output of `node` with a pipe that comes
// from Linux fails (EBADF), so it goes to files, which this copies as they grow. Of an exit code Linux sees the low byte.
import { spawn } from "node:child_process"
import path from "node:path"
import { bundleHosts } from "./hosts.mjs"
import { findWine, root, runNode } from "./wine.mjs"

const seconds = Number(process.env.TREELINE_WINDOWS_LIMIT ?? 480)
process.env.TREELINE_REPORT = "windows"
const [first, ...rest] = process.argv.slice(2)
const isTests = first !== "--script"
const args = !isTests
  ? ["--conditions=source", ...rest]
  : ["node_modules/vitest/vitest.mjs", "run", "--project", "windows*", ...process.argv.slice(2)]

if (process.env.TREELINE_WINDOWS === "skip" && isTests) {
  console.log("windows: skipped, as TREELINE_WINDOWS says. Nothing was tested on Windows.")
} else if (process.platform === "win32") {
  if (isTests) {
    process.env.TREELINE_HOSTS = path.join(root, ".windows/hosts")
    await bundleHosts(process.env.TREELINE_HOSTS)
  }
  const child = spawn(process.execPath, args, { cwd: root, stdio: "inherit", timeout: seconds * 1000 })
  child.once("exit", (code) => {
    if (code === null) console.error(`windows: still running after ${seconds} s: it is ended`)
    process.exitCode = code ?? 124
  })
} else {
  const wine = findWine()
  if (wine === undefined) {
    console.log(
      "windows: skipped, because Wine is not installed (Debian: apt-get install wine64). Nothing was tested on Windows."
    )
  } else {
    console.error(`windows: ${wine.version}, ${path.relative(process.cwd(), root) || "."}`)
    process.exitCode = await runNode(wine, args, seconds * 1000, isTests ? bundleHosts : undefined)
  }
}
