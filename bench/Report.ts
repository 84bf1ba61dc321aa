/** Figures and tables. */

/** A question and its answer as a table; the first row is what the others are compared with, where there is a ratio. */
export interface Table {
  readonly title: string
  /** What was done, and what the columns mean. */
  readonly text: string
  readonly columns: ReadonlyArray<string>
  readonly rows: ReadonlyArray<ReadonlyArray<string>>
  /** The figures that `--ci` judges, by name. */
  readonly figures?: Readonly<Record<string, number>>
}

export interface Options {
  /** How many times each measurement is repeated; the median is shown. */
  readonly rounds: number
  /** Asks for little: no more than what `--ci` judges. */
  readonly short: boolean
  /** Says what is going on. */
  readonly progress: (text: string) => void
}

/** One question of the benchmark. */
export interface Question {
  readonly name: string
  /** undefined where it can't be asked, because what it is about is not installed. */
  readonly run: (options: Options) => Promise<Table | undefined>
}

export const median = (values: ReadonlyArray<number>): number => quantile(values, 0.5)

/** The value below which the share `at` of all values lies; NaN for none. */
export const quantile = (values: ReadonlyArray<number>, at: number): number => {
  const sorted = values.toSorted((a, b) => a - b)
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * at))] ?? Number.NaN
}

export const ms = (value: number): string =>
  Number.isNaN(value) ? "-" : value >= 100 ? value.toFixed(0) : value >= 10 ? value.toFixed(1) : value.toFixed(2)

/** A share with two digits. */
export const share = (value: number, of: number): string =>
  Number.isFinite(value / of) ? `${(value / of).toFixed(2)} x` : "-"

export const ratio = (value: number, of: number): string =>
  Number.isFinite(value / of) ? `${(value / of).toFixed(1)} x` : "-"

/** Asks every contender in turn, round by round, so that what the machine does meanwhile meets all of them. */
export const interleaved = async <C, A>(
  rounds: number,
  contenders: ReadonlyArray<C>,
  ask: (contender: C) => Promise<A>
): Promise<ReadonlyArray<ReadonlyArray<A>>> => {
  const answers: ReadonlyArray<Array<A>> = contenders.map(() => [])
  for (let round = 0; round < rounds; round++) {
    for (let index = 0; index < contenders.length; index++) {
      const at = (index + round) % contenders.length
      answers[at]!.push(await ask(contenders[at]!))
    }
  }
  return answers
}

/** Markdown that reads well as plain text. */
export const render = ({ columns, rows, text, title }: Table): string => {
  const widths = columns.map((column, at) => Math.max(column.length, ...rows.map((row) => row[at]!.length)))
  const line = (cells: ReadonlyArray<string>) =>
    `| ${cells.map((cell, at) => at === 0 ? cell.padEnd(widths[at]!) : cell.padStart(widths[at]!)).join(" | ")} |`
  const rule = `| ${
    widths.map((width, at) => at === 0 ? "-".repeat(width) : `${"-".repeat(width - 1)}:`).join(" | ")
  } |`
  return [`### ${title}`, "", text, "", line(columns), rule, ...rows.map(line), ""].join("\n")
}
