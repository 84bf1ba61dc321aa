/** What examples print: lines of at most 80 columns, with the time and who it is about. */
import { styleText } from "node:util"

export type Style = Parameters<typeof styleText>[0]

const width = 80

/** The columns of names. */
const nameWidth = 8

let startedAt = Date.now()

/** Times are counted from here. */
export const begin = (): void => {
  startedAt = Date.now()
}

/** `styleText` itself looks at the stream and at NO_COLOR. */
export const line = (at: number, who: string, what: string, style?: Style): void => {
  const time = `${((at - startedAt) / 1000).toFixed(2)} s`.padStart(8)
  const indent = time.length + 2 + nameWidth
  // A long text goes on in the next line.
  const rows = [""]
  for (const word of what.split(" ")) {
    const row = rows.at(-1)!
    if (row !== "" && indent + row.length + 1 + word.length > width) rows.push(`  ${word}`)
    else rows[rows.length - 1] = row === "" ? word : `${row} ${word}`
  }
  for (const [index, row] of rows.entries()) {
    const before = index === 0
      ? `${styleText("cyan", time)}  ${styleText("bold", who.padEnd(nameWidth))}`
      : " ".repeat(indent)
    console.log(`${before}${style === undefined ? row : styleText(style, row)}`.trimEnd())
  }
}

/** Something that the example itself does. */
export const action = (what: string): void => line(Date.now(), "", what, "bold")

export const heading = (text: string): void => {
  console.log("")
  console.log(styleText("bold", `── ${text} ${"─".repeat(Math.max(0, width - 4 - text.length))}`))
}

/** The verdict. */
export const left = (count: number, of: number): void =>
  line(
    Date.now(),
    "",
    count === 0 ? `✔ nothing is left: 0 of ${of} processes` : `✘ left running: ${count} of ${of}`,
    count === 0 ? "green" : "red"
  )
