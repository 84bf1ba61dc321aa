// A reporter. Vitest waits without a limit for the end of its workers' output, and under Wine somebody else may hold that:
// the console of a process that was killed before it had found its console stays for ever, with what it inherited.
const grace = 15_000

export default class {
  onTestRunEnd() {
    setTimeout(() => {
      console.error(`windows: something holds the output of a worker ${grace / 1000} s after the last test: it is left`)
      process.exit()
    }, grace).unref()
  }
}
