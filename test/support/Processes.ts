/**
 * Processes as a test sees them, independent of the code under test.
 */
import * as child_process from "node:child_process"
import * as fs from "node:fs"

/** A process that can't be mistaken for a later one with the same number. */
export interface Identity {
  readonly pid: number
  readonly start: string
}

interface Row extends Identity {
  readonly state: string
  readonly threads: number
}

const readProc = (pid: number): Row | undefined => {
  try {
    const text = fs.readFileSync(`/proc/${pid}/stat`, "latin1")
    const fields = text.slice(text.lastIndexOf(")") + 2).split(" ")
    return { pid, state: fields[0]!, threads: Number(fields[17]), start: fields[19]! }
  } catch {
    return undefined
  }
}

const readPs = (pid: number): Row | undefined => {
  const { stdout } = child_process.spawnSync("ps", ["-o", "state=,lstart=", "-p", String(pid)], { encoding: "utf8" })
  const match = /^(\S+)\s+(.+?)\s*$/.exec(stdout.trim())
  return match === null ? undefined : { pid, state: match[1]!, threads: 1, start: match[2]! }
}

const read = process.platform === "linux" ? readProc : readPs

const lives = (row: Row): boolean => !(/^[ZXx]/.test(row.state) && row.threads <= 1)

/** The identity of a process that lives now; undefined for a zombie or none. */
export const identify = (pid: number): Identity | undefined => {
  const row = read(pid)
  return row !== undefined && lives(row) ? { pid, start: row.start } : undefined
}

/** It exists, is no zombie, and is the same one: not a later process with its number. */
export const isAlive = (identity: Identity): boolean => identify(identity.pid)?.start === identity.start

/** The state letter of a process, such as `T` for stopped; undefined when it has gone. */
export const stateOf = (pid: number): string | undefined => read(pid)?.state

/** Kills a process if it is still the same one. */
export const killIfAlive = (identity: Identity): void => {
  if (identity.pid <= 1 || !isAlive(identity)) return
  try {
    process.kill(identity.pid, "SIGKILL")
  } catch {
    // it has gone in this instant
  }
}

/** Sends a signal to a process that may just have gone. */
export const signalIfAlive = (pid: number, signal: NodeJS.Signals): void => {
  try {
    process.kill(pid, signal)
  } catch {
    // it has gone
  }
}
