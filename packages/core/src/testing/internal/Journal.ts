/** What happened in a run, in order: what the supervisor told, what was asked, what probes did. */
import type { ChildEvent } from "../../ChildStatus.ts"
import type { SupervisorEvent } from "../../Supervisor.ts"

/** Operations on a child or on the supervisor. */
export type Operation = "start" | "stop" | "restart" | "pause" | "resume" | "remove" | "stopAll"

/**
 * `at` is monotonic ms. `Child`: an event of the child at `path`. `Supervisor`: an event of the supervisor at `path`, the
 * outermost one's is empty. `Issued` and `Settled`: an operation was asked for, and answered with `outcome`: `ok`, the tag
 * of an error, or `abandoned`. `Probe`: a probe of a child.
 */
export type Entry =
  | { readonly _tag: "Child"; readonly at: number; readonly path: string; readonly event: ChildEvent }
  | {
    readonly _tag: "Supervisor"
    readonly at: number
    readonly path: string
    readonly event: Exclude<SupervisorEvent, { readonly _tag: "Child" }>
  }
  | {
    readonly _tag: "Issued"
    readonly at: number
    readonly id: number
    readonly operation: Operation
    readonly child: string
  }
  | { readonly _tag: "Settled"; readonly at: number; readonly id: number; readonly outcome: string }
  | { readonly _tag: "Probe"; readonly at: number; readonly path: string; readonly phase: "begin" | "end" }

export class Journal {
  readonly entries: Array<Entry> = []
  private readonly clock: () => number
  private issued = 0

  constructor(clock: () => number) {
    this.clock = clock
  }

  /** Whole ms, as the actors count them. */
  private now(): number {
    return Math.floor(this.clock())
  }

  supervisor(path: string, event: SupervisorEvent): void {
    const at = this.now()
    // A nested child's events come from its own supervisor, and once more from each one around it.
    if (event._tag !== "Child") this.entries.push({ _tag: "Supervisor", at, path, event })
    else if (!event.event.child.includes("/")) {
      const child = path === "" ? event.event.child : `${path}/${event.event.child}`
      this.entries.push({ _tag: "Child", at, path: child, event: event.event })
    }
  }

  issue(operation: Operation, child: string): number {
    const id = ++this.issued
    this.entries.push({ _tag: "Issued", at: this.now(), id, operation, child })
    return id
  }

  settle(id: number, outcome: string): void {
    this.entries.push({ _tag: "Settled", at: this.now(), id, outcome })
  }

  probe(path: string, phase: "begin" | "end"): void {
    this.entries.push({ _tag: "Probe", at: this.now(), path, phase })
  }
}

const describeChange = ({ change }: ChildEvent): string => {
  switch (change._tag) {
    case "State": {
      const { to } = change
      const detail = to._tag === "Waiting"
        ? ` on ${to.on.join(", ")}`
        : to._tag === "Stopping"
        ? ` (${to.why}${to.step === "" ? "" : `, ${to.step}`})`
        : to._tag === "Failed"
        ? ` (${to.error.reason})`
        : ""
      return `${change.from._tag} -> ${to._tag}${detail}`
    }
    case "Ended":
      return `ended: ${change.end?._tag ?? "as asked"}${change.survivors.length > 0 ? ", not all of it" : ""}`
    case "Health":
      return change.health
    default:
      return change._tag.toLowerCase()
  }
}

/** For people, a line each. */
export const format = (entries: ReadonlyArray<Entry>): string =>
  entries.map((entry) => {
    const at = `${String(Math.round(entry.at)).padStart(8)} ms  `
    switch (entry._tag) {
      case "Child":
        return `${at}${entry.path}#${entry.event.incarnation} ${describeChange(entry.event)}`
      case "Supervisor":
        return `${at}supervisor ${entry.path} ${entry.event._tag}${
          "children" in entry.event ? ` ${entry.event.children.join(", ")}` : ""
        }`
      case "Issued":
        return `${at}[${entry.id}] ${entry.operation} ${entry.child}`
      case "Settled":
        return `${at}[${entry.id}] ${entry.outcome}`
      case "Probe":
        return `${at}${entry.path} probe ${entry.phase}`
    }
  }).join("\n")
