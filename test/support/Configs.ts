/** Configurations for tests. */
import { ConfigLoad, ConfigSource, ServiceConfig } from "@treeline/core/daemon"
import type { InvalidConfig } from "@treeline/core/Errors"
import { Effect, Result, Schema } from "effect"

/** A configuration from what may be written in a file. */
export const configOf = (input: ServiceConfig.Input): ServiceConfig.Config =>
  Schema.decodeUnknownSync(ServiceConfig.Config)(input, { onExcessProperty: "error" })

type SettingsResult = Result.Result<ReadonlyArray<ConfigSource.Override>, InvalidConfig>

export interface Sources {
  /** The text of `treeline.json`. */
  readonly text: string
  readonly environment?: Readonly<Record<string, string>>
  readonly flags?: ReadonlyArray<string>
  /** For the state folder, or for any. */
  readonly settings?: SettingsResult | ((directory: string | undefined) => SettingsResult)
  /** Other files, by their absolute paths. */
  readonly files?: Readonly<Record<string, string>>
}

/** Loads a configuration of the folder `/srv`. */
export const load = (sources: Sources) =>
  ConfigLoad.load({
    file: Result.getOrThrow(ConfigSource.json("treeline.json", sources.text)),
    environment: sources.environment ?? {},
    flags: sources.flags ?? [],
    settings: (directory) => {
      const settings = typeof sources.settings === "function" ? sources.settings(directory) : sources.settings
      return Effect.fromResult(settings ?? Result.succeed([]))
    },
    resolvePath: (path) => path.startsWith("/") ? path : path === "." ? "/srv" : `/srv/${path}`,
    readText: (path) => {
      const text = sources.files?.[path]
      return text === undefined ? Effect.fail("it is not there") : Effect.succeed(text)
    }
  })
