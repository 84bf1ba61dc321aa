/** Snapshots of services for tests of what is drawn of them. */
import { type ChildState, Errors } from "@treeline/core"
import type { HostStatus } from "@treeline/core/daemon"

/** When the snapshots are taken, in ms. */
export const now = 1_800_000_000_000

export const ready = (pid: number, since: number): ChildState.ChildState => ({
  _tag: "Ready",
  incarnation: 1,
  pid,
  since
})

export const failed = (child: string, reason: string): ChildState.ChildState => ({
  _tag: "Failed",
  error: new Errors.ChildFailed({ child, reason, causes: [], survivors: [], outputTail: "" })
})

/** A service; what is not given is as it is when all is well. */
export const service = (
  name: string,
  state: ChildState.ChildState,
  more: Partial<HostStatus.ServiceStatus["child"]> & Pick<Partial<HostStatus.ServiceStatus>, "usage"> = {}
): HostStatus.ServiceStatus => {
  const { usage = null, ...child } = more
  return {
    name,
    groups: [],
    child: {
      id: name,
      state,
      health: "unknown",
      paused: false,
      incarnation: 1,
      restarts: 0,
      lastEnd: null,
      children: [],
      ...child
    },
    since: now,
    readySince: null,
    usage
  }
}

export const status = (
  services: ReadonlyArray<HostStatus.ServiceStatus>,
  more: Partial<HostStatus.HostStatus> = {}
): HostStatus.HostStatus => ({
  at: now,
  host: {
    pid: 4711,
    version: "0.1.0",
    startedAt: now - 125_000,
    file: "/srv/treeline.json",
    reloadedAt: now,
    paused: false
  },
  phase: "running",
  restartsInWindow: 0,
  services,
  pools: [],
  logs: [],
  blocking: [],
  ...more
})
