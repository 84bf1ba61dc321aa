// Loaded into every Node inside Wine. Wine takes the links in node_modules for folders, so Node would not find out that
// a package of this workspace lives outside of node_modules, where type stripping is refused.
const { registerHooks } = require("node:module")

registerHooks({
  resolve: (specifier, context, next) => {
    const resolved = next(specifier, context)
    const url = resolved.url.replace(/\/node_modules\/(?:@treeline\/|(?=treeline\/))/, "/packages/")
    return url === resolved.url ? resolved : { ...resolved, url }
  }
})
