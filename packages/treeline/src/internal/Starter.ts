/** What `treeline init` writes. */

export type Format = "json" | "ts" | "procfile"

/** The file of each format. */
export const fileOf: Readonly<Record<Format, string>> = {
  json: "treeline.json",
  ts: "treeline.config.ts",
  procfile: "Procfile"
}

const json =
  `// Services that treeline runs. "treeline config" checks this file, "treeline config --explain" says what holds and why.
{
  "$schema": "./node_modules/treeline/schema/treeline.schema.json",

  "services": {
    "web": {
      // A program and its arguments. For a line with pipes or && add "shell": true and leave "args" out.
      "command": "node",
      "args": ["-e", "require('node:http').createServer((_, res) => res.end('hello')).listen(process.env.PORT)"],

      // Its variables, beside treeline's own. A secret is not written here, it is looked up:
      //   "API_KEY": { "fromEnv": "API_KEY" } or { "fromFile": "/run/secrets/api-key" }
      "env": { "PORT": "3000" },
      // "envFile": [".env"],

      // When it is ready: "line", "fd", "tcp", "http" or "exec".
      "readiness": { "tcp": 3000, "within": "30 seconds" },
      // Asked while it runs; when it fails three times in a row, the service is restarted.
      "liveness": [{ "http": "http://127.0.0.1:3000/", "interval": "10 seconds" }],

      // "permanent" always starts it again, "transient" unless it ended well, "temporary" never.
      "restart": { "mode": "permanent" },

      // Each step waits for the whole process tree to end; after the last one it is killed.
      "shutdown": { "steps": [{ "action": "SIGTERM", "within": "5 seconds" }] }
    },

    "worker": {
      "command": "sleep",
      "args": ["3600"],
      // Started when these are ready, stopped before them.
      "dependsOn": ["web"]
    }
  },

  // Names for several services.
  "groups": { "all": ["web", "worker"] },

  // More than 5 restarts within a minute end all services.
  "supervisor": { "intensity": { "max": 5, "within": "1 minute" } }
}
`

/** The same as a module: its comments stay, its names need no quotes. */
const ts =
  `// Services that treeline runs. "treeline config" checks this file, "treeline config --explain" says what holds and why.
export default {
${
    json.split("\n").slice(4, -2).join("\n").replaceAll(/^(\s*)"([a-z]\w*)":/gmi, "$1$2:")
      .replaceAll(/^(?!\s*\/\/).*$/gm, (line) => line.replaceAll(/([{[,] )"([a-z]\w*)":/gi, "$1$2:"))
  }
} satisfies import("treeline/daemon").ServiceConfig.Input
`

const procfile =
  `# Processes that treeline runs, each by a line for the shell. PORT is 5000 for the first one, 5100 for the second.
# Variables in a file .env beside this one are given to all of them. For more than this: treeline init --format json
web: node -e "require('node:http').createServer((_, res) => res.end('hello')).listen(process.env.PORT)"
worker: sleep 3600
`

/** The text of each format. */
export const textOf: Readonly<Record<Format, string>> = { json, ts, procfile }
