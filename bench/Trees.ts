/** The trees that are measured. Every process of them reports its own pid to a file: `sh -c SCRIPT sh REPORT`. */
import { Effect } from "effect"
import * as child_process from "node:child_process"
import * as fs from "node:fs"
import { type Identity, isAlive, stateOf } from "../test/support/Processes.ts"
import { Scratch } from "../test/support/Scratch.ts"
import type { Group } from "./Contenders.ts"

/** A script for `sh`, and how many processes report themselves. */
export interface Tree {
  readonly script: string
  readonly size: number
}

const leaf = `sh -c 'echo "leaf $$" >> "$0"; exec sleep 60' "$1" &`

/** Ends on SIGTERM: the leader passes it on, waits for its children and ends; every process has a parent to the end. */
export const obedient: Tree = {
  script: `${leaf} a=$!; ${leaf} b=$!; trap 'kill $a $b; wait; exit 0' TERM; echo "leader $$" >> "$1"; wait; wait`,
  size: 3
}

/**
 * Ends on SIGTERM, but the leader ends at once: its children die as orphans, and stay as zombies for as long as the
 * system's first process does not collect them.
 */
export const orphaning: Tree = { script: `${leaf} ${leaf} echo "leader $$" >> "$1"; wait`, size: 3 }

/** As `orphaning`, but the children need 30 ms to end. */
export const lingering: Tree = {
  script: `slow() { sh -c 'trap "sleep 0.03; exit 0" TERM; sleep 60 & echo "leaf $$" >> "$0"; wait' "$1" & }
slow "$1"; slow "$1"; echo "leader $$" >> "$1"; wait`,
  size: 3
}

/** Starts one more process when it is told to end, as a program does that is stopped while it is starting others. */
export const startsOnSignal: Tree = {
  script: `trap 'sleep 60 & exit 0' TERM; sleep 60 & echo "leader $$" >> "$1"; wait`,
  size: 1
}

/** Runs a command to clean up when it is told to end, and reports only if that succeeds. */
export const cleansUp: Tree = {
  script: `trap 'sleep 0.2 && echo "cleaned $$" >> "$1"; exit 0' TERM; sleep 60 & echo "leader $$" >> "$1"; wait`,
  size: 1
}

/** Ignores SIGTERM. */
export const stubborn: Tree = { script: `trap '' TERM; echo "leader $$" >> "$1"; exec sleep 60`, size: 1 }

/** Does nothing, in one process. */
export const quiet: Tree = { script: `echo "leader $$" >> "$1"; exec sleep 60`, size: 1 }

export const argsOf = (tree: Tree, scratch: Scratch): ReadonlyArray<string> => ["-c", tree.script, "sh", scratch.report]

/** Waits, without giving the processor away, until no process lives; returns who lives after `limit` ms. */
export const awaitDead = (processes: ReadonlyArray<Identity>, limit: number): ReadonlyArray<Identity> => {
  const deadline = performance.now() + limit
  let alive = processes.filter(isAlive)
  while (alive.length > 0 && performance.now() < deadline) alive = alive.filter(isAlive)
  return alive
}

/** Gives a scratch folder to `body`; whatever was reported to it is killed at the end. */
export const withScratch = async <A>(body: (scratch: Scratch) => Promise<A>): Promise<A> => {
  const scratch = new Scratch()
  try {
    return await body(scratch)
  } finally {
    scratch.killLiving()
    fs.rmSync(scratch.directory, { recursive: true, force: true })
  }
}

/** What it took to end some trees. */
export interface Closed {
  /** ms until the library said that it was done. */
  readonly ms: number
  /** How many processes lived then. */
  readonly left: number
  /** Names of all reports. */
  readonly said: ReadonlyArray<string>
}

/** Starts `count` trees in one group, waits until all processes have reported, and measures their end. */
export const measureClose = (group: Group, tree: Tree, count = 1): Promise<Closed> =>
  withScratch(async (scratch) => {
    for (let index = 0; index < count; index++) await group.launch("sh", argsOf(tree, scratch))
    await Effect.runPromise(scratch.awaitReported(count * tree.size))
    const startedAt = performance.now()
    await group.close()
    const ms = performance.now() - startedAt
    return { ms, left: scratch.living().length, said: scratch.reported().map(({ name }) => name) }
  })

/** Starts a tree by Node, and sends SIGTERM to its group by kill(2); returns the processes and when the last was dead. */
const die = (tree: Tree) =>
  withScratch(async (scratch) => {
    const leader = child_process.spawn("sh", argsOf(tree, scratch), { stdio: "ignore", detached: true })
    const processes = await Effect.runPromise(scratch.awaitReported(tree.size))
    const startedAt = performance.now()
    process.kill(-leader.pid!, "SIGTERM")
    const left = awaitDead(processes, 5000)
    const ms = performance.now() - startedAt
    if (left.length > 0) throw new Error("the tree does not end on SIGTERM")
    return { processes, ms }
  })

/** The tree's own dying time in ms, from SIGTERM until its last process is dead. Nobody can be faster. */
export const measureOwnDyingTime = async (tree: Tree): Promise<number> => (await die(tree)).ms

/** Whether dead processes of a tree are still in the table 1 s after their death, because nobody collects them. */
export const leavesZombies = async (tree: Tree): Promise<boolean> => {
  const { processes } = await die(tree)
  const deadline = performance.now() + 1000
  let zombies = processes.length
  while (zombies > 0 && performance.now() < deadline) {
    await new Promise((resolve) => setTimeout(resolve, 10))
    zombies = processes.filter(({ pid }) => stateOf(pid) !== undefined).length
  }
  return zombies > 0
}
