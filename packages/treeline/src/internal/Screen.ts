/**
 * What `treeline up` and `treeline status` draw: a snapshot as a table, a line of a log, and the escape codes that put a
 * table below all that was printed so far. Pure: the same snapshot gives the same text.
 */
import type { ChildState } from "@treeline/core/ChildState"
import type { HostStatus, ServiceStatus } from "@treeline/core/daemon/HostStatus"
import { describeGap, type Entry } from "@treeline/core/daemon/LogLine"
import * as Cells from "./Cells.ts"
import * as Text from "./Text.ts"
import * as Words from "./Words.ts"

/** Where it is drawn. */
export interface View {
  /** Cells in a line and lines of the window. */
  readonly columns: number
  readonly rows: number
  readonly colors: boolean
  /** Whether other characters than those of ASCII are shown. */
  readonly unicode: boolean
}

/** A smaller window has no table. */
export const smallest = { columns: 24, rows: 6 }

/** No column of names is wider. */
const longestName = 24

/** Attributes of ANSI: bold, weak, red, green, yellow. */
const [bold, weak, red, green, yellow] = [1, 2, 31, 32, 33]

const colorOf = (state: ChildState): number => {
  switch (state._tag) {
    case "Ready":
      return green
    case "Failed":
      return red
    case "Stopped":
      return weak
    case "Waiting":
    case "Starting":
    case "Running":
    case "Stopping":
    case "BackingOff":
      return yellow
  }
}

interface Column {
  readonly title: string
  readonly cells: number
  readonly right: boolean
  /** What goes first when there is no room: the largest. */
  readonly rank: number
  readonly text: (service: ServiceStatus) => string
}

/** The processor column of a table: a share for one that is drawn again and again, a sum for one that is drawn once. */
export interface Processor {
  readonly title: string
  readonly text: (service: ServiceStatus) => string
}

/** What its processes have used altogether. */
export const processorTime: Processor = {
  title: "CPU",
  text: ({ usage }) =>
    usage === null ? "" : usage.cpu < 60_000 ? `${(usage.cpu / 1000).toFixed(1)}s` : Words.age(usage.cpu)
}

const health = ({ child }: ServiceStatus): string =>
  child.paused ? "paused" : child.health === "unknown" ? "-" : child.health

const columnsOf = (now: number, processor: Processor): ReadonlyArray<Column> => [
  { title: "HEALTH", cells: 8, right: false, rank: 3, text: health },
  {
    title: "PID",
    cells: 7,
    right: true,
    rank: 1,
    text: ({ child: { state } }) => "pid" in state && state.pid !== null ? String(state.pid) : ""
  },
  { title: "RESTARTS", cells: 8, right: true, rank: 4, text: ({ child }) => String(child.restarts) },
  { ...processor, cells: 6, right: true, rank: 6 },
  { title: "MEM", cells: 6, right: true, rank: 5, text: ({ usage }) => usage === null ? "" : Words.size(usage.memory) },
  {
    title: "UPTIME",
    cells: 7,
    right: true,
    rank: 2,
    text: ({ child: { state } }) => "since" in state ? Words.age(now - state.since) : ""
  }
]

const gap = 2

/** Those that fit into `room` beside the name and the state. */
const fitting = (columns: ReadonlyArray<Column>, room: number): ReadonlyArray<Column> => {
  const kept = [...columns]
  const used = () => kept.reduce((sum, { cells }) => sum + gap + cells, 0)
  while (kept.length > 0 && used() > room) {
    kept.splice(kept.reduce((worst, { rank }, n) => rank > kept[worst]!.rank ? n : worst, 0), 1)
  }
  return kept
}

const stateCells = 8

/** Whether the figures of a service say more than a sentence about its state. */
const hasFigures = ({ _tag }: ChildState): boolean => _tag === "Ready" || _tag === "Running" || _tag === "Starting"

const notReady = "not ready yet"

/** What has to be seen when there is no room for all, first. */
const urgency: Readonly<Record<ChildState["_tag"], number>> = {
  Failed: 0,
  BackingOff: 1,
  Stopping: 2,
  Running: 3,
  Starting: 3,
  Waiting: 4,
  Ready: 5,
  Stopped: 6
}

/** The most urgent ones, in the order in which they are listed. */
const chosen = (services: ReadonlyArray<ServiceStatus>, most: number): ReadonlyArray<ServiceStatus> => {
  if (services.length <= most) return services
  const ranked = services.map((service, index) => ({ service, index })).sort((a, b) =>
    urgency[a.service.child.state._tag] - urgency[b.service.child.state._tag] || a.index - b.index
  )
  return ranked.slice(0, most).sort((a, b) => a.index - b.index).map(({ service }) => service)
}

/**
 * The services as rows under titles, at most `most` lines (at least 2), none wider than the window. A service without
 * a process has a sentence in the place of the figures.
 */
export const services = (
  status: HostStatus,
  view: View,
  most = Number.POSITIVE_INFINITY,
  processor: Processor = processorTime
): ReadonlyArray<string> => {
  const { columns: width, unicode } = view
  const paint = Text.painter(view.colors)
  const mark = unicode ? "…" : "~"
  const all = status.services
  const shown = chosen(all, all.length + 1 <= most ? all.length : most - 2)
  const nameCells = Math.min(
    Math.max(4, ...shown.map(({ name }) => Cells.width(name))),
    longestName,
    Math.max(4, width - gap - stateCells)
  )
  const rest = width - nameCells - gap - stateCells
  const columns = fitting(columnsOf(status.at, processor), rest)
  const line = (name: string, state: string, cells: ReadonlyArray<string>) =>
    [name, state, ...cells].join(" ".repeat(gap)).trimEnd()
  const titles = line(
    Cells.padEnd("NAME", nameCells),
    Cells.padEnd("STATE", stateCells),
    columns.map(({ cells, right, title }) => right ? Cells.padStart(title, cells) : Cells.padEnd(title, cells))
  )
  const rows = shown.map((service) => {
    const { state } = service.child
    const name = Cells.padEnd(Cells.truncate(service.name, nameCells, mark), nameCells)
    const word = Words.stateWord(state)
    const text = Cells.truncate(word, Math.max(1, Math.min(stateCells, width - nameCells - gap)), mark)
    const painted = paint(colorOf(state), text) + " ".repeat(Math.max(0, stateCells - text.length))
    const figures = columns.map(({ cells, right, text }) => {
      const value = Cells.truncate(text(service), cells, mark)
      return right ? Cells.padStart(value, cells) : Cells.padEnd(value, cells)
    })
    const paused = service.child.paused ? "paused; " : ""
    const sentence = Cells.clean(paused + Words.detail(state, status.at))
    if (hasFigures(state)) {
      const used = columns.reduce((sum, { cells }) => sum + gap + cells, 0)
      const fits = state._tag === "Running" && used + gap + notReady.length <= rest
      return line(name, painted, fits ? [...figures, notReady] : figures)
    }
    return line(name, painted, rest - gap < 4 ? [] : [Cells.truncate(sentence, rest - gap, mark)])
  })
  const hidden = all.length - shown.length
  return [
    paint(weak, Cells.truncate(titles, width, mark)),
    ...rows,
    ...hidden === 0
      ? []
      : [
        paint(
          weak,
          Cells.truncate(`and ${hidden} more: ${Words.summary(all.filter((one) => !shown.includes(one)))}`, width, mark)
        )
      ]
  ]
}

/** What is to be known beside the services: pools, and log files that can't be written. */
export const remarks = ({ logs, pools }: HostStatus, view: View): ReadonlyArray<string> => {
  const mark = view.unicode ? "…" : "~"
  const paint = Text.painter(view.colors)
  return [
    ...pools.map((pool) => Cells.truncate(`pool ${pool.pool}: ${Words.pool(pool)}`, view.columns, mark)),
    ...logs.flatMap(({ child, file }) =>
      file === null || file.failing === null
        ? []
        : [
          paint(
            red,
            Cells.truncate(`the log of ${child} can't be written: ${Cells.clean(file.failing)}`, view.columns, mark)
          )
        ]
    )
  ]
}

/** What Ctrl-C does next. */
export type Interrupt = "stops" | "kills" | "none"

/** The rule above the table: what this is, how it stands, and how to end it. */
const rule = (status: HostStatus, view: View, interrupt: Interrupt): string => {
  const { columns, unicode } = view
  const dash = unicode ? "─" : "-"
  const mark = unicode ? "…" : "~"
  const paint = Text.painter(view.colors)
  const phase = status.phase === "running" ? "" : `${status.phase}, `
  const paused = status.host.paused ? "paused, " : ""
  const left = `treeline: ${phase}${paused}${Words.summary(status.services) || "no services"}, ${
    Words.age(status.at - status.host.startedAt)
  }`
  const hint = interrupt === "stops" ? " Ctrl-C stops " : interrupt === "kills" ? " Ctrl-C kills " : ""
  const right = columns < 2 * hint.length ? "" : hint
  const shown = Cells.truncate(left, columns - 4 - right.length, mark)
  const dashes = dash.repeat(Math.max(0, columns - 4 - Cells.width(shown) - right.length))
  return `${paint(weak, dash)} ${paint(bold, shown)} ${paint(weak, `${dashes}${right}${dash}`)}`
}

/** The whole of what stays at the bottom of the window: at most half of it; empty where the window is too small. */
export const panel = (
  status: HostStatus,
  view: View,
  options: { readonly interrupt: Interrupt; readonly processor: Processor }
): ReadonlyArray<string> => {
  if (view.columns < smallest.columns || view.rows < smallest.rows) return []
  // The last column stays free: a line that fills it would make some terminals go to the next one.
  const inner = { ...view, columns: view.columns - 1 }
  const most = Math.max(3, Math.floor(view.rows / 2) - 1)
  const { columns, unicode } = inner
  const waits = status.blocking.length === 0 ? [] : [
    Text.painter(view.colors)(
      yellow,
      Cells.truncate(
        Cells.clean(`waits for the end of ${Words.blocking(status.blocking, status.at)}`),
        columns,
        unicode ? "…" : "~"
      )
    )
  ]
  const notes = [...waits, ...remarks(status, inner)].slice(0, Math.max(waits.length, most - 3))
  return [
    rule(status, inner, options.interrupt),
    ...services(status, inner, most - notes.length, options.processor),
    ...notes
  ]
}

// ---------------------------------------------------------------------------------------------------- lines

/** Colours that tell services apart: cyan, magenta, blue, green, yellow, and the bright ones; no red. */
const palette = [36, 35, 34, 32, 33, 96, 95, 94, 92, 93]

/** How the lines of several services stand beside each other. */
export interface Prefix {
  readonly cells: number
  readonly colors: ReadonlyMap<string, number>
}

export const ownName = "treeline"

/** The longer the names, the further right the text; names that come later may be longer. */
export const prefixOf = (names: ReadonlyArray<string>): Prefix => ({
  cells: Math.min(longestName, Math.max(0, ...[ownName, ...names].map(Cells.width))),
  colors: new Map(names.map((name, index) => [name, palette[index % palette.length]!]))
})

const prefixed = (name: string, text: string, { cells, colors }: Prefix, color: boolean): string => {
  const shown = Cells.padEnd(Cells.truncate(name, longestName, "~"), cells)
  return `${Text.painter(color)(colors.get(name) ?? (name === ownName ? bold : palette[0]!), shown)} | ${text}`
}

/** One line of a log, as it goes to a terminal or into a pipe. A terminal wraps it, so that it can be copied whole. */
export const logLine = (
  entry: Entry,
  prefix: Prefix,
  view: { readonly colors: boolean; readonly terminal: boolean }
): string => {
  const text = entry._tag === "Gap"
    ? Text.painter(view.colors)(yellow, `(${describeGap(entry)})`)
    : view.terminal
    ? Cells.clean(entry.text, view.colors)
    : entry.text
  return prefixed(entry.child, text, prefix, view.colors)
}

/** What `treeline` itself has to say, among the lines of the services. */
export const ownLine = (text: string, prefix: Prefix, colors: boolean): string =>
  prefixed(ownName, Cells.clean(text), prefix, colors)

// ---------------------------------------------------------------------------------------------------- frames

/** The panel that is on the terminal: how wide each of its lines is. */
export interface Drawn {
  readonly widths: ReadonlyArray<number>
}

export const nothingDrawn: Drawn = { widths: [] }

/** How many lines a panel takes in a window of another width: most terminals wrap anew what no longer fits. */
const heightOf = ({ widths }: Drawn, columns: number): number =>
  widths.reduce((sum, width) => sum + Math.max(1, Math.ceil(width / columns)), 0)

/** Synchronized output: terminals that know it show a frame as a whole, others ignore it. */
const synchronized = { begin: "\u001b[?2026h", end: "\u001b[?2026l" }

export const hideCursor = "\u001b[?25l"
export const showCursor = "\u001b[?25h"

/** To the first line of what is drawn, and everything from there on is gone. */
const erase = (drawn: Drawn, columns: number): string => {
  const height = heightOf(drawn, columns)
  if (height === 0) return ""
  return `\r${height > 1 ? `\u001b[${height - 1}A` : ""}\u001b[0J`
}

/** Prints lines where the panel was, and the panel below them. Lines that scroll out of the window stay in its memory. */
export const frame = (
  before: Drawn,
  lines: ReadonlyArray<string>,
  panel: ReadonlyArray<string>,
  columns: number
): { readonly text: string; readonly drawn: Drawn } => {
  const printed = lines.map((line) => `${line}\r\n`).join("")
  return {
    text: `${synchronized.begin}${hideCursor}${erase(before, columns)}${printed}${
      panel.join("\r\n")
    }${synchronized.end}`,
    drawn: { widths: panel.map(Cells.width) }
  }
}

/** Takes the panel away and gives the terminal back. */
export const farewell = (before: Drawn, columns: number): string => erase(before, columns) + showCursor
