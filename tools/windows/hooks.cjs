// Loaded into every Node inside Wine.
const childProcess = require("node:child_process")
const { registerHooks, syncBuiltinESMExports } = require("node:module")

// Wine takes the links in node_modules for folders, so Node would not find out that a package of this workspace lives
// outside of node_modules, where type stripping is refused.
registerHooks({
  resolve: (specifier, context, next) => {
    const resolved = next(specifier, context)
    const url = resolved.url.replace(/\/node_modules\/(?:@treeline\/|(?=treeline\/))/, "/packages/")
    return url === resolved.url ? resolved : { ...resolved, url }
  }
})

// On a busy machine CreateProcessW now and then fails with error 1359, which Node tells as UNKNOWN. Vitest would leave out
// the tests of the worker.
for (const name of ["fork", "spawn"]) {
  const launch = childProcess[name]
  childProcess[name] = (...args) => {
    for (let tries = 1;; tries++) {
      try {
        return launch(...args)
      } catch (error) {
        if (error.code !== "UNKNOWN" || tries === 5) throw error
      }
    }
  }
}
syncBuiltinESMExports()
