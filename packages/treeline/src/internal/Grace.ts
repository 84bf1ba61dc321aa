/** Times on the command line. */

const units: Readonly<Record<string, number>> = {
  "": 1000,
  ms: 1,
  milli: 1,
  millis: 1,
  millisecond: 1,
  milliseconds: 1,
  s: 1000,
  sec: 1000,
  second: 1000,
  seconds: 1000,
  m: 60_000,
  min: 60_000,
  minute: 60_000,
  minutes: 60_000,
  h: 3_600_000,
  hour: 3_600_000,
  hours: 3_600_000
}

/** A longer wait can't be told from none; timers end at 2^31 ms anyway. */
const maxDays = 24

const bounded = (ms: number): number => {
  if (!Number.isFinite(ms)) throw new Error("a finite time: every wait is bounded")
  if (ms < 0) throw new Error("a time that is not negative; 0 kills at once")
  if (ms > maxDays * 24 * 3_600_000) throw new Error(`at most ${maxDays} days`)
  return ms
}

/** `5s`, `500ms`, `2 minutes`, `1.5h`, `0`, in ms; a number without a unit is seconds. Throws what is expected. */
export const parse = (text: string): number => {
  const match = /^([+-]?(?:\d+\.?\d*|\.\d+|inf(?:inity)?|nan))\s*([a-z]*)$/i.exec(text.trim())
  const unit = match === null ? undefined : units[match[2]!.toLowerCase()]
  if (match === null || unit === undefined) throw new Error("a time such as 5s, 500ms, \"2 minutes\" or 0")
  return bounded(Number(match[1]) * unit)
}

/** Seconds as Python writes them, in ms. Throws what is expected. */
export const parseSeconds = (text: string): number => {
  if (!/^[+-]?(?:(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?|inf(?:inity)?|nan)$/i.test(text.trim())) {
    throw new Error("a number of seconds")
  }
  return bounded(Number(text) * 1000)
}

/**
 * A negative time looks like an option of its own, so `--grace -5s` is joined to `--grace=-5s`: then it is refused for
 * what it is. What comes after `--` is left alone.
 */
export const joinNegative = (argv: ReadonlyArray<string>, flags: ReadonlySet<string>): ReadonlyArray<string> => {
  const end = argv.includes("--") ? argv.indexOf("--") : argv.length
  const joined: Array<string> = []
  for (const [index, arg] of argv.entries()) {
    const before = joined.at(-1)
    if (index < end && before !== undefined && flags.has(before) && /^-[\d.in]/i.test(arg)) {
      joined[joined.length - 1] = `${before}=${arg}`
    } else joined.push(arg)
  }
  return joined
}
