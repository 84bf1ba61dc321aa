/** `treeline doctor`: what can be promised on this system. */
import * as Containment from "@treeline/core/Containment"
import { ProcessPlatform } from "@treeline/core/ProcessPlatform"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import * as Console from "./Console.ts"
import * as Ending from "./Ending.ts"
import * as Text from "./Text.ts"

/** What each level means for a person. */
const promises: Readonly<Record<Containment.Level, string>> = {
  group: "What stays in its process group ends. A program that starts a session of its own gets away.",
  marked: "What keeps its environment ends, also in a session of its own. A program that clears its environment and " +
    "starts a session of its own gets away.",
  tagged: "Every process of a tree ends, also one that starts a session of its own, forks twice or clears its " +
    "environment.",
  sealed: "The kernel itself holds every process of a tree; none gets away."
}

/** The report for people. */
export const render = (report: Containment.Report, version: string, colors: boolean): string => {
  const paint = Text.painter(colors)
  const column = 9 + Math.max(...report.mechanisms.map(({ name }) => name.length))
  return [
    `treeline ${version}, Node ${process.versions.node}, ${report.platform}`,
    "",
    `Containment here: ${paint(1, report.level)}`,
    `  ${Text.wrap(promises[report.level], 2)}`,
    "",
    "Levels, each includes those before it:",
    `  ${
      Containment.Level.literals.map((level) =>
        level === report.level
          ? paint(1, `[${level}]`)
          : Containment.atLeast(report.level, level)
          ? level
          : paint(2, level)
      ).join("  ")
    }`,
    "",
    "Mechanisms:",
    ...report.mechanisms.map(({ available, detail, name }) =>
      `  ${available ? paint(32, "yes") : paint(33, "no ")}  ${name.padEnd(column - 7)}${Text.wrap(detail, column)}`
    ),
    ...report.raise === undefined ? [] : ["", "To raise it:", `  ${Text.wrap(report.raise, 2)}`]
  ].join("\n")
}

/** Prints the report. */
export const doctor = Effect.fn("treeline doctor")(
  function*(options: { readonly json: boolean; readonly version: string }) {
    const platform = yield* ProcessPlatform
    const report = yield* platform.containment
    const text = options.json
      ? Schema.encodeSync(Schema.fromJsonString(Containment.Report))(report)
      : render(report, options.version, Console.canColor(1))
    yield* Effect.promise(() => Console.print(1, text))
    return Ending.code(0)
  }
)
