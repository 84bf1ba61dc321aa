/** What a request means on Windows: a file to start, a command line and an environment. All the same for every engine. */
import type { LaunchRequest } from "@treeline/core/Engine"
import { LaunchError } from "@treeline/core/Errors"
import * as Result from "effect/Result"
import { win32 as path } from "node:path"
import * as CommandLine from "./CommandLine.ts"
import * as EnvironmentBlock from "./EnvironmentBlock.ts"
import * as Executable from "./Executable.ts"

/** A command, resolved. */
export interface Command {
  readonly file: string
  readonly commandLine: string
  readonly env: Readonly<Record<string, string>>
  readonly cwd: string | undefined
  /** It is run by cmd.exe, whose process is not that of what the file starts. */
  readonly isBatch: boolean
}

/** The folder of the system's own programs, as the environment has it. */
export const systemDirectory = (): string =>
  path.join(EnvironmentBlock.get(process.env, "SystemRoot") ?? "C:\\Windows", "System32")

/** The environment of the child. */
export const environmentOf = (request: LaunchRequest, host: EnvironmentBlock.Environment): Record<string, string> =>
  EnvironmentBlock.withRequired(EnvironmentBlock.merge(request.extendEnv ? host : {}, request.env), host, request.env)

/** How a request is shown to people: never its arguments. */
export const nameOf = (request: LaunchRequest): string => request.shell === false ? request.command : "shell"

/** Finds the program and writes its command line. */
export const resolve = (
  request: LaunchRequest,
  host: {
    readonly env: EnvironmentBlock.Environment
    readonly directory: string
    readonly systemDirectory: string
    readonly files?: Executable.Files
  }
): Result.Result<Command, LaunchError> =>
  Result.gen(function*() {
    const fail = (reason: LaunchError["reason"], detail: string) =>
      Result.fail(new LaunchError({ command: nameOf(request), reason, detail }))
    const files = host.files ?? Executable.nodeFiles
    const cwd = request.cwd === undefined ? undefined : path.resolve(host.directory, request.cwd)
    const unusable = cwd === undefined ? undefined : Executable.checkDirectory(cwd, files)
    if (unusable !== undefined) return yield* fail("BadWorkingDirectory", unusable)
    // Reading one variable of the host's is a call of the system, so all are read once.
    const env = environmentOf(request, { ...host.env })
    const cmd = path.join(host.systemDirectory, "cmd.exe")
    const build = (file: string, line: Result.Result<string, CommandLine.CommandLineProblem>, isBatch = false) =>
      Result.match(line, {
        onSuccess: (commandLine): Result.Result<Command, LaunchError> =>
          Result.succeed({ file, commandLine, env, cwd, isBatch }),
        onFailure: ({ detail }) => fail("InvalidArgument", detail)
      })
    if (request.shell === true || (typeof request.shell === "string" && CommandLine.isCmd(request.shell))) {
      return yield* build(cmd, CommandLine.ofCmdScript(request.command))
    }
    const name = request.shell === false ? request.command : request.shell
    const args = request.shell === false ? request.args : ["-c", request.command]
    const found = Executable.resolve(name, cwd ?? host.directory, env, files)
    switch (found._tag) {
      case "Failed":
        return yield* fail(found.reason, found.detail)
      case "Batch":
        return yield* build(cmd, CommandLine.ofBatch(found.file, args), true)
      case "Image":
        return yield* build(found.file, CommandLine.ofProgram(name, args))
    }
  })
