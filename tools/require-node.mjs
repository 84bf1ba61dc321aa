// The first step of every script. Node comes from an optional dependency, so it can be missing without npm
// saying so; this turns "some tool crashes strangely" into one plain sentence.
const wanted = [22, 19]
const [major, minor] = process.versions.node.split(".").map(Number)
if (major < wanted[0] || (major === wanted[0] && minor < wanted[1])) {
  console.error(
    `This project needs Node ${wanted.join(".")} or newer, but this is ${process.version}: `
      + "install without --omit=optional and start it through npm (npm test, npm run check)."
  )
  process.exit(1)
}
