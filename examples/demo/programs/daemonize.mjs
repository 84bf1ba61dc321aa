// Becomes a daemon as daemons do: a new session (setsid) for a child whose parent ends at once, so that neither the
// process group nor the parent says any more where it came from.
import { spawn } from "node:child_process"

const daemon = spawn("sleep", ["60"], { detached: true, stdio: "ignore" })
console.log(JSON.stringify({ name: "daemon", pid: daemon.pid }))
daemon.unref()
