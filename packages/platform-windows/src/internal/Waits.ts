/**
 * Tells when a process ends, without polling and without a thread of Node's pool: the system's own wait threads call back
 * (RegisterWaitForSingleObject).
 */
import * as Kernel32 from "./Kernel32.ts"
import type { Handle } from "./Structs.ts"

/** The listener of one wait; the handle must stay open until it was called or the wait is cancelled. */
interface Waiting {
  readonly wait: Handle
  readonly listener: () => void
}

export class Waits {
  private readonly kernel: Kernel32.Kernel32
  private readonly pending = new Map<number, Waiting>()
  private readonly callback: bigint
  private readonly out = new BigUint64Array(1)
  private last = 0

  constructor(kernel: Kernel32.Kernel32) {
    this.kernel = kernel
    this.callback = kernel.onWait((context) => this.fired(Number(context)))
  }

  /** A callback that was on its way when its wait was cancelled finds nothing. */
  private fired(id: number): void {
    const waiting = this.pending.get(id)
    if (waiting === undefined) return
    this.pending.delete(id)
    this.kernel.UnregisterWaitEx(waiting.wait, 0)
    waiting.listener()
  }

  /**
   * Calls `listener` once when the process has ended; the function that is returned cancels. Undefined when the system
   * has no room for one more wait.
   */
  add(process: Handle, listener: () => void): (() => void) | undefined {
    const id = ++this.last
    if (
      this.kernel.RegisterWaitForSingleObject(
        this.out,
        process,
        this.callback,
        id,
        Kernel32.INFINITE,
        Kernel32.WAIT_FLAGS
      ) === 0
    ) {
      return undefined
    }
    const wait = this.out[0]!
    this.pending.set(id, { wait, listener })
    return () => {
      // Never the form that waits for a running callback: that callback waits for this thread.
      if (this.pending.delete(id)) this.kernel.UnregisterWaitEx(wait, 0)
    }
  }

  /** Cancels all that is pending. */
  cancelAll(): void {
    for (const { wait } of this.pending.values()) this.kernel.UnregisterWaitEx(wait, 0)
    this.pending.clear()
  }
}

let shared: Waits | undefined = undefined

/**
 * One for the whole process: the function that Windows calls can never be taken back safely. It must not be called when
 * Node has ended, which is before the process has.
 */
export const get = (kernel: Kernel32.Kernel32): Waits => {
  if (shared !== undefined) return shared
  const waits = new Waits(kernel)
  process.once("exit", () => waits.cancelAll())
  return shared = waits
}

/** Keeps the event loop alive while anything references it: a pending wait does not. */
export class KeepAlive {
  private count = 0
  private timer: NodeJS.Timeout | undefined = undefined

  reference(): void {
    if (this.count++ === 0) this.timer = setInterval(() => {}, 0x7fff_ffff)
  }

  unreference(): void {
    if (--this.count > 0) return
    clearInterval(this.timer)
    this.timer = undefined
  }
}
