/** Flags that several commands have. */
import { Level } from "@treeline/core/Containment"
import * as Flag from "effect/cli/Flag"
import * as Option from "effect/Option"
import * as Grace from "./Grace.ts"

/** The message of what was thrown, for `mapTryCatch`. */
export const reasonOf = (error: unknown): string => error instanceof Error ? error.message : String(error)

/** Which configuration, and what is to hold instead of what it says. */
export const configuration = {
  file: Flag.String("config").pipe(
    Flag.withAlias("c"),
    Flag.withMetavar("FILE"),
    Flag.withDescription("The configuration; else TREELINE_CONFIG, else the one here or in a folder above"),
    Flag.optional,
    Flag.map(Option.getOrUndefined)
  ),
  flags: Flag.String("set").pipe(
    Flag.withMetavar("PATH=VALUE"),
    Flag.withDescription("Another value, such as services.web.restart.mode=transient; may come often"),
    Flag.atLeast(0)
  )
}

export const json = (description: string) =>
  Flag.Boolean("json").pipe(Flag.withDescription(description), Flag.withDefault(false))

/** What `--json` of most commands means. */
export const answerAsJson = json("One JSON object on stdout; an error is one on stderr")

/** A time, in ms. */
export const time = (name: string, description: string) =>
  Flag.String(name).pipe(
    Flag.withMetavar("TIME"),
    Flag.withDescription(description),
    Flag.mapTryCatch(Grace.parse, reasonOf)
  )

export const requiredLevel = Flag.Literals("require", Level.literals).pipe(
  Flag.withMetavar("LEVEL"),
  Flag.withDescription("Start nothing unless this containment is promised"),
  Flag.optional,
  Flag.map(Option.getOrUndefined)
)
