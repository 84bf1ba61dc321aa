/** Text for a terminal of 80 columns. */

/** Words in lines of at most `width` characters, each after `indent` spaces; a longer word has a line of its own. */
export const wrap = (text: string, indent: number, width = 79): string => {
  const lines: Array<string> = []
  let line = ""
  for (const word of text.split(" ")) {
    if (line !== "" && indent + line.length + 1 + word.length > width) {
      lines.push(line)
      line = word
    } else line = line === "" ? word : `${line} ${word}`
  }
  lines.push(line)
  return lines.join(`\n${" ".repeat(indent)}`)
}

/** Rows of a name and what it means, the second wrapped in a column of its own; after a long name on its own line. */
export const rows = (entries: ReadonlyArray<readonly [name: string, text: string]>, most = 24): Array<string> => {
  const column = 4 + Math.min(most, Math.max(...entries.map(([name]) => name.length)))
  return entries.map(([name, text]) =>
    `  ${name.length + 4 > column ? `${name}\n${" ".repeat(column)}` : name.padEnd(column - 2)}${wrap(text, column)}`
  )
}

/** Adds ANSI attributes where the reader wants them. */
export const painter = (colors: boolean) => (attribute: number, text: string): string =>
  colors ? `\x1b[${attribute}m${text}\x1b[0m` : text
