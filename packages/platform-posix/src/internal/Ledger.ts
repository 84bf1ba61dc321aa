/**
 * What a host has running, as lines of text: the guardian gets them by its pipe, a record on disk keeps them for the
 * case that host and guardian die in the same instant (peer case 42).
 *
 * `+ TREE PID START` a tree was started; pid and start time are those of its leader, 0 where it has no group of its own.
 * `- TREE` it is empty, `= TREE` it was released and lives on, `~ TREE` it was taken back, `G PID START` the guardian,
 * `C PATH` the folder of the control groups, one for each tree.
 */

export interface Leader {
  readonly pid: number
  readonly start: number
}

export const started = (tree: number, leader: Leader | undefined): string =>
  `+ ${tree} ${leader?.pid ?? 0} ${leader?.start ?? 0}\n`
export const ended = (tree: number): string => `- ${tree}\n`
export const released = (tree: number): string => `= ${tree}\n`
export const takenBack = (tree: number): string => `~ ${tree}\n`
export const guardedBy = (guardian: Leader): string => `G ${guardian.pid} ${guardian.start}\n`

export const sealedIn = (folder: string): string => `C ${folder}\n`

/** The state that the lines add up to. */
export interface Ledger {
  /** Trees that have not been reported empty, each with its leader. */
  readonly trees: Map<number, Leader>
  readonly kept: Set<number>
  guardian: Leader | undefined
  groups: string | undefined
}

/** Reads lines; a half-written last line and unknown ones are left out. */
export const parse = (text: string): Ledger => {
  const ledger: Ledger = { trees: new Map(), kept: new Set(), guardian: undefined, groups: undefined }
  for (const line of text.slice(0, text.lastIndexOf("\n") + 1).split("\n")) {
    if (line.startsWith("C /")) ledger.groups = line.slice(2)
    const match = /^(\+ \d+ \d+ \d+|[-=~] \d+|G \d+ \d+)$/.exec(line)
    if (match === null) continue
    const [kind, ...numbers] = line.split(" ")
    const [a = 0, b = 0, c = 0] = numbers.map(Number)
    switch (kind) {
      case "+":
        ledger.trees.set(a, { pid: b, start: c })
        break
      case "-":
        ledger.trees.delete(a)
        break
      case "=":
        ledger.kept.add(a)
        break
      case "~":
        ledger.kept.delete(a)
        break
      case "G":
        ledger.guardian = { pid: a, start: b }
        break
    }
  }
  return ledger
}

/** What the ledgers of one host add up to: each platform in it, in a second copy or a Worker, has its own. */
export interface Together {
  /** Pids of leaders, with their start times. */
  readonly leaders: ReadonlyMap<number, number>
  readonly kept: ReadonlySet<number>
  readonly guardians: ReadonlyArray<Leader>
  /** Folders of control groups. */
  readonly folders: ReadonlyArray<string>
}

export const together = (ledgers: ReadonlyArray<Ledger>): Together => {
  const trees = new Map(ledgers.flatMap((ledger) => [...ledger.trees]))
  return {
    leaders: new Map([...trees.values()].filter(({ pid }) => pid > 1).map(({ pid, start }) => [pid, start])),
    // A platform that is closed does not hear of the end of what it has released, and the number is used again.
    kept: new Set(ledgers.flatMap((ledger) => [...ledger.kept]).filter((tree) => !trees.has(tree))),
    guardians: ledgers.flatMap(({ guardian }) => guardian ?? []),
    folders: ledgers.flatMap(({ groups }) => groups ?? [])
  }
}
