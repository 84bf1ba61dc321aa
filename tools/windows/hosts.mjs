// The programs that the tests start and kill, each in one file. From its sources a host is 300 files, and Wine takes 2
// seconds to find and open them; so it is 0.4.
import fs from "node:fs"
import path from "node:path"
import { rolldown } from "rolldown"

const root = path.resolve(import.meta.dirname, "../..")

/** Bundles the hosts and the command as FOLDER/dist/bin/NAME.js. */
export const bundleHosts = async (folder) => {
  const bundle = await rolldown({
    cwd: root,
    input: {
      "bin/windowsHost": "test/fixtures/windowsHost.ts",
      "bin/windowsManaged": "test/fixtures/windowsManaged.ts",
      "bin/treeline": "packages/treeline/src/bin.ts",
      // Where the library looks for it from a file in a folder of its own.
      consoleHelper: "packages/platform-windows/src/consoleHelper.ts"
    },
    platform: "node",
    resolve: { conditionNames: ["source", "import", "node", "default"] },
    logLevel: "silent"
  })
  await bundle.write({
    dir: path.join(folder, "dist"),
    format: "esm",
    entryFileNames: "[name].js",
    chunkFileNames: "chunks/[name].js"
  })
  await bundle.close()
  // Where the command reads its version, as in its package.
  fs.copyFileSync(path.join(root, "packages/treeline/package.json"), path.join(folder, "package.json"))
}
