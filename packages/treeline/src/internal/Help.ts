/** `--help` in 80 columns: what it does, how it is called, and examples. */
import type { FlagDoc, HelpDoc } from "effect/cli/HelpDoc"
import * as Option from "effect/Option"
import * as Text from "./Text.ts"

const flagRow = ({ aliases, description, name, type }: FlagDoc): readonly [string, string] => [
  [...aliases, `--${name}`].join(", ") + (type === "boolean" ? "" : type.startsWith("<") ? " WORD" : ` ${type}`),
  Option.getOrElse(description, () => "")
]

/** The command of a user comes after `--`, so that its own options are not taken for ours. */
const usage = (text: string): string =>
  text.replace("[flags]", "[options]").replace("<CMD> [<ARGS...>]", "-- CMD [ARGS...]")

/** Paragraphs are wrapped; one with indented lines is a table and is kept. */
const prose = (text: string): string =>
  text.split("\n\n").map((paragraph) =>
    paragraph.includes("\n  ") ? paragraph : Text.wrap(paragraph.replaceAll("\n", " "), 0)
  ).join("\n\n")

/** Help as text. */
export const render = (doc: HelpDoc, colors: boolean): string => {
  const paint = Text.painter(colors)
  const section = (title: string, lines: ReadonlyArray<string>) =>
    lines.length === 0 ? [] : ["", paint(1, `${title}:`), ...lines]
  const examples = doc.examples ?? []
  return [
    `${paint(1, "Usage:")} ${usage(doc.usage)}`,
    "",
    prose(doc.description),
    ...section(
      "Commands",
      Text.rows(
        (doc.subcommands ?? []).flatMap(({ commands }) =>
          // One without a line is for treeline itself.
          commands.flatMap(({ name, shortDescription }) =>
            shortDescription === undefined ? [] : [[name, shortDescription] as const]
          )
        )
      )
    ),
    ...section("Options", Text.rows([...doc.flags, ...doc.globalFlags ?? []].map(flagRow))),
    ...section(
      "Examples",
      examples.flatMap(({ command, description }) => [`  ${command}`, `      ${description ?? ""}`])
    )
  ].join("\n")
}
