/** What is told of services, in words for people. */
import * as ChildEnd from "@treeline/core/ChildEnd"
import type { ChildState } from "@treeline/core/ChildState"
import type { ChildEvent } from "@treeline/core/ChildStatus"
import type { HostEvent, Progress, ServiceStatus } from "@treeline/core/daemon/HostStatus"
import type { Report } from "@treeline/core/daemon/Services"
import type { KeyState } from "@treeline/core/PoolState"
import type { PoolEvent, PoolStatus } from "@treeline/core/PoolStatus"
import type { Blocking, SupervisorEvent } from "@treeline/core/Supervisor"

/** A time in a sentence: `0.4 s`, `12 s`, `2 min 5 s`. */
export const duration = (ms: number): string => {
  const seconds = Math.max(0, ms) / 1000
  if (seconds < 9.95) return `${seconds.toFixed(1)} s`
  const whole = Math.round(seconds)
  if (whole < 60) return `${whole} s`
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`
  return `${Math.floor(whole / 3600)} h ${Math.floor(whole / 60) % 60} min`
}

/** A time in a table: `4s`, `2m05s`, `3h07m`, `12d04h`. */
export const age = (ms: number): string => {
  const seconds = Math.max(0, Math.floor(ms / 1000))
  const two = (n: number) => String(n).padStart(2, "0")
  if (seconds < 60) return `${seconds}s`
  if (seconds < 3600) return `${Math.floor(seconds / 60)}m${two(seconds % 60)}s`
  if (seconds < 86_400) return `${Math.floor(seconds / 3600)}h${two(Math.floor(seconds / 60) % 60)}m`
  return `${Math.floor(seconds / 86_400)}d${two(Math.floor(seconds / 3600) % 24)}h`
}

/** Bytes in a table: `812K`, `48.1M`. */
export const size = (bytes: number): string => {
  let value = bytes / 1024
  for (const unit of ["K", "M", "G"]) {
    if (value < 1000) return `${value < 99.95 && unit !== "K" ? value.toFixed(1) : Math.round(value)}${unit}`
    value /= 1024
  }
  return `${value.toFixed(1)}T`
}

export const count = (n: number, one: string, many = `${one}s`): string => `${n} ${n === 1 ? one : many}`

/** A state in one word. What has done its work is `done`, and no more `stopped`. */
export const stateWord = (state: ChildState): string => {
  switch (state._tag) {
    case "BackingOff":
      return "backoff"
    case "Stopped":
      return state.end === null ? "stopped" : "done"
    default:
      return state._tag.toLowerCase()
  }
}

const withPid = (pid: number | null): string => pid === null ? "" : `pid ${pid}, `

/** What there is to say of a state beside its word; empty when all is well. `now` is ms, wall clock. */
export const detail = (state: ChildState, now: number): string => {
  switch (state._tag) {
    case "Waiting":
      return state.on.length === 0 ? "" : `for ${state.on.join(", ")}`
    case "Starting":
      return `for ${duration(now - state.since)}`
    case "Running":
      return `not ready for ${duration(now - state.since)}`
    case "Ready":
      return ""
    case "Stopping":
      return `${withPid(state.pid)}${state.step} for ${duration(now - state.since)}`
    case "BackingOff":
      return `restart ${state.attempt} in ${duration(state.until - now)}: ${ChildEnd.describe(state.end)}`
    case "Stopped":
      return state.end === null ? "" : ChildEnd.describe(state.end)
    case "Failed":
      return state.error.reason
  }
}

/** What a stop waits for: `web (pid 12, SIGTERM for 3.2 s)`. */
export const blocking = (items: ReadonlyArray<Blocking>, now: number): string =>
  items.map(({ child, pid, since, step }) => `${child} (${withPid(pid)}${step} for ${duration(now - since)})`).join(
    ", "
  )

/** How far an operation is; undefined when there is nothing to say. */
export const progress = (step: Progress): string | undefined => {
  switch (step._tag) {
    case "Changed":
      return changed(step.service, step.incarnation, step.state, step.at, undefined)
    case "Waiting": {
      const parts = [
        ...step.blocking.length === 0 ? [] : [`the end of ${blocking(step.blocking, step.at)}`],
        // What is restarted is being ended first.
        ...step.starting.filter(({ service }) => !step.blocking.some(({ child }) => child === service)).map((one) => {
          const { service, state } = one
          const more = detail(state, step.at)
          return `${service} (${stateWord(state)}${more === "" ? "" : ` ${more}`})`
        })
      ]
      return parts.length === 0 ? undefined : `waits for ${parts.join(", ")}`
    }
    case "Done":
      return undefined
  }
}

/** How `ChildEnd.describe` begins for an end that nobody has asked for. */
const byItself = /^(?:exited|killed|terminated|ended|completed)/

/** A state that a service has come to; `before` is when its last one began. */
const changed = (
  name: string,
  incarnation: number,
  state: ChildState,
  at: number,
  before: number | undefined
): string | undefined => {
  switch (state._tag) {
    case "Waiting":
      return state.on.length === 0 ? undefined : `${name} waits for ${state.on.join(", ")}`
    case "Starting":
      return incarnation > 1 ? `${name} starts again` : `${name} starts`
    // Only where readiness is still to be seen; it is told then.
    case "Running":
      return undefined
    case "Ready":
      return `${name} is ready${ready(state.pid, before === undefined ? undefined : at - before)}`
    case "Stopping":
      // What follows an end by itself says how it was.
      return byItself.test(state.why) ? undefined : `${name} is being ended: ${state.why}`
    case "BackingOff":
      return `${name} ${ended(ChildEnd.describe(state.end))}; restart ${state.attempt} in ${duration(state.until - at)}`
    case "Stopped":
      return state.end === null ? `${name} is stopped` : `${name} is done: ${ChildEnd.describe(state.end)}`
    case "Failed":
      return `${name} has failed: ${state.error.reason}`
  }
}

/** Which process it is, and how long that took, unless it took no time. */
const ready = (pid: number | null, ms: number | undefined): string => {
  const parts = [...pid === null ? [] : [`pid ${pid}`], ...ms === undefined || ms < 50 ? [] : [`after ${duration(ms)}`]]
  return parts.length === 0 ? "" : ` (${parts.join(", ")})`
}

/** `exited with code 1` and `killed by SIGKILL` need a verb. */
const ended = (description: string): string => description.startsWith("killed") ? `was ${description}` : description

const childEvent = ({ at, change, child, incarnation }: ChildEvent): string | undefined => {
  switch (change._tag) {
    case "State": {
      const { from, to } = change
      // The steps of an end are told by what waits for it.
      return from._tag === to._tag
        ? undefined
        : changed(child, incarnation, to, at, "since" in from ? from.since : undefined)
    }
    case "Health":
      return change.health === "unknown"
        ? undefined
        : `${child} is ${change.health}${change.detail === null ? "" : `: ${change.detail}`}`
    case "Paused":
      return `${child} is paused: no restarts, no probes`
    case "Resumed":
      return `${child} is resumed`
    case "Ended":
      return change.survivors.length === 0
        ? undefined
        : `${count(change.survivors.length, "process", "processes")} of ${child} could not be ended: ${
          change.survivors.map(({ command, pid }) => `${pid} (${command})`).join(", ")
        }`
  }
}

const supervisorEvent = (event: SupervisorEvent): string | undefined => {
  switch (event._tag) {
    case "Child":
      return childEvent(event.event)
    case "Round":
      return event.children.length < 2
        ? undefined
        : `${event.children.join(", ")} start again because ${event.origin} has ended`
    case "RoundOver":
      return undefined
    case "Stopping":
      return event.error === null ? "all are being ended" : `all are being ended: ${event.error.message}`
    case "Ended":
      return "all have ended"
  }
}

const poolEvent = (pool: string, { change, key }: PoolEvent): string | undefined => {
  const who = `${key} of the pool ${pool}`
  switch (change._tag) {
    case "State":
      return keyChanged(who, change.to)
    case "BuildFailed":
      return `${who} could not be built: ${change.problem}`
    case "SaveFailed":
      return `the state of ${who} could not be saved (try ${change.attempt}): ${change.problem}`
  }
}

const keyChanged = (who: string, state: KeyState): string | undefined => {
  switch (state._tag) {
    case "Absent":
      return `${who} is gone`
    case "Waiting":
      return `${who} waits for room`
    case "Building":
      return undefined
    case "Live":
      return `${who} is live${state.pid === null ? "" : ` (pid ${state.pid})`}`
    case "Retiring":
      return `${who} is being ended: ${state.reason}`
    case "Blocked":
      return `${who} is blocked: ${state.problem}`
  }
}

/** What a reload did. */
export const report = ({ applied, needsRestart, unchanged }: Report): string => {
  const by = (change: Report["applied"][number]["change"]) =>
    applied.filter((item) => item.change === change).map(({ service }) => service)
  const parts = [
    ...(["added", "changed", "removed"] as const).flatMap((change) => {
      const names = by(change)
      return names.length === 0 ? [] : [`${change} ${names.join(", ")}`]
    }),
    ...unchanged.length === 0 ? [] : [`${unchanged.length} unchanged`],
    ...needsRestart.length === 0 ? [] : [`${needsRestart.join(", ")} holds after a restart only`]
  ]
  return parts.length === 0 ? "nothing" : parts.join("; ")
}

/** One event in one line; undefined when it says nothing to a person. */
export const event = (self: HostEvent): string | undefined => {
  switch (self._tag) {
    case "Supervisor":
      return supervisorEvent(self.event)
    case "Pool":
      return poolEvent(self.pool, self.event)
    case "Reloaded":
      return `the configuration was read anew: ${report(self.report)}`
    case "Paused":
      return "all are paused: no restarts, no probes"
    case "Resumed":
      return "all are resumed"
  }
}

/** When it happened: ms, wall clock. */
export const timeOf = (self: HostEvent): number => self._tag === "Pool" ? self.event.at : self.at

/** A pool in one line. */
export const pool = ({ capacity, keys, open }: PoolStatus): string => {
  const states = ["Live", "Building", "Waiting", "Retiring", "Blocked"] as const
  const parts = states.flatMap((tag) => {
    const n = keys.filter(({ state }) => state._tag === tag).length
    return n === 0 ? [] : [`${n} ${tag.toLowerCase()}`]
  })
  const full = capacity === null ? "" : ` of at most ${capacity}`
  return `${parts.length === 0 ? "no keys" : parts.join(", ")}${full}${open ? "" : ", closed"}`
}

/** How many services are in which state: `3 ready, 1 waiting`. */
export const summary = (services: ReadonlyArray<ServiceStatus>): string => {
  const counts = new Map<string, number>()
  for (const { child } of services) {
    const word = stateWord(child.state)
    counts.set(word, (counts.get(word) ?? 0) + 1)
  }
  return [...counts].map(([word, n]) => `${n} ${word}`).join(", ")
}
