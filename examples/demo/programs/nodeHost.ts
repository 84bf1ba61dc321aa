/** The same host on Node's own child_process. */
import { spawn } from "node:child_process"
import { command } from "../Tree.ts"

const args = command.args.filter((arg) => typeof arg === "string")
spawn(command.command, args, { stdio: ["ignore", "inherit", "inherit"] })
