// The hosts that the tests kill, each in one file. From its sources a host is 300 files, and Wine takes 2 seconds to find
// and open them; so it is 0.4.
import path from "node:path"
import { rolldown } from "rolldown"

const root = path.resolve(import.meta.dirname, "../..")

/** Bundles test/fixtures/windowsHost.ts as FOLDER/bin/windowsHost.js. */
export const bundleHosts = async (folder) => {
  const bundle = await rolldown({
    cwd: root,
    input: {
      "bin/windowsHost": "test/fixtures/windowsHost.ts",
      // Where the library looks for it from a file in a folder of its own.
      consoleHelper: "packages/platform-windows/src/consoleHelper.ts"
    },
    platform: "node",
    resolve: { conditionNames: ["source", "import", "node", "default"] },
    logLevel: "silent"
  })
  await bundle.write({ dir: folder, format: "esm", entryFileNames: "[name].js", chunkFileNames: "chunks/[name].js" })
  await bundle.close()
}
