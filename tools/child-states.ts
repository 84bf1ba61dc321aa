// Writes the diagram and the tables of docs/child-states.md, between its marks, from the table of ChildState.ts.
import { ChildState } from "@treeline/core"
import fs from "node:fs"
import path from "node:path"

const states: Readonly<Record<ChildState.Tag, string>> = {
  Waiting: "it is to run, and something has to come first: `on` names it",
  Starting: "an incarnation is being launched",
  Running: "launched; readiness has not been seen yet",
  Ready: "up, and asked by its liveness probes",
  Stopping: "its tree is being ended: `why`, and at which `step` of the shutdown plan",
  BackingOff: "it has ended, its tree is empty; the next incarnation begins at `until`",
  Stopped: "down by request (`end` is null), or done (`end` says how)",
  Failed: "down for good, or until somebody starts it; `error` says why"
}

const events: Readonly<Record<ChildState.Event, string>> = {
  start: "it is to run, and may",
  wait: "it is to run, and has to wait for something first",
  launched: "the launch has succeeded",
  ready: "its readiness was seen, or it has none to be asked for",
  exited: "it ended by itself",
  failing: "its launch, readiness or liveness failed, so it is ended",
  stop: "somebody wants it down; this beats every other wish",
  restart: "somebody wants another incarnation",
  halt: "it makes way for a restart together with its siblings",
  backOff: "the tree is empty, and a restart follows after a wait",
  startAgain: "the tree is empty, and a restart follows at once",
  park: "the tree is empty and a restart follows when something else allows it; or it is paused in its backoff",
  finish: "the tree is empty, and all is well",
  giveUp:
    "no restart follows: its end is final, its restarts are used up, what it depends on has failed, or its tree could not be ended",
  due: "the backoff is over"
}

const begin = "<!-- from packages/core/src/ChildState.ts by `npm run child-states`: -->"
const end = "<!-- end -->"

const tags = Object.keys(states) as ReadonlyArray<ChildState.Tag>
const names = Object.keys(events) as ReadonlyArray<ChildState.Event>

/** Where an event leads from each state that it changes, those with the same target together. */
const changes = (event: ChildState.Event): string => {
  const from = new Map<ChildState.Tag, Array<ChildState.Tag>>()
  for (const tag of tags) {
    const to = ChildState.next(tag, event)
    if (to !== tag) from.set(to, [...from.get(to) ?? [], tag])
  }
  return [...from].map(([to, tags]) => `${tags.join(", ")} → ${to}`).join("; ")
}

const row = (...cells: ReadonlyArray<string>) => `| ${cells.join(" | ")} |`

const generated = (): string =>
  [
    begin,
    "",
    "```mermaid",
    ChildState.toMermaid().trimEnd(),
    "```",
    "",
    row("state", "what it means", "a tree may exist"),
    row("---", "---", "---"),
    ...tags.map((tag) => row(`\`${tag}\``, states[tag], ChildState.isUp(tag) ? "yes" : "no")),
    "",
    row("event", "what has happened", "from → to"),
    row("---", "---", "---"),
    ...names.map((name) => row(`\`${name}\``, events[name], changes(name))),
    "",
    end
  ].join("\n")

/** The page with what the table says now. */
export const render = (page: string): string => {
  const [from, to] = [page.indexOf(begin), page.indexOf(end)]
  if (from < 0 || to < from) throw new Error("docs/child-states.md has lost its marks")
  return `${page.slice(0, from)}${generated()}${page.slice(to + end.length)}`
}

/** The page. */
export const file = path.resolve(import.meta.dirname, "../docs/child-states.md")

if (import.meta.main) fs.writeFileSync(file, render(fs.readFileSync(file, "utf8")))
