/** What the helper for console events does with a request; the calls of the system are in consoleHelper.ts. */

/** The console of this process. */
export interface Console {
  /** Joins that of a process; false where it has none. */
  readonly join: (pid: number) => boolean
  readonly leave: () => void
  /** Who is attached to it; undefined where the system does not tell. */
  readonly attached: () => ReadonlyArray<number> | undefined
  /** Sends an event to all of them, this process too. */
  readonly send: (event: string) => boolean
}

/**
 * Our own event must have met the handler before it is gone, so the console is left so much later, in ms. Other trees may
 * wait for that, and a helper that was too quick is replaced.
 */
export const lingering = 20

/**
 * Answers a request `ID EVENT HOST PID...` by `ID CONSOLES`: how many consoles were given the event. One that the host is
 * attached to, or may be, is given none. Returns when the last console was left; no two run at once.
 */
export const handle = async (
  line: string,
  console: Console,
  answer: (line: string) => void,
  wait: (ms: number) => Promise<unknown>
): Promise<void> => {
  const [id, event = "", host, ...targets] = line.split(" ")
  const asked = new Set<number>()
  let consoles = 0
  /** An event was sent to the console that was joined. */
  let isAsked = false
  const leave = async () => {
    if (isAsked) await wait(lingering)
    isAsked = false
    console.leave()
  }
  for (const target of targets.map(Number)) {
    if (asked.has(target)) continue
    await leave()
    if (!console.join(target)) continue
    const attached = console.attached()
    if (attached === undefined || attached.includes(Number(host)) || !console.send(event)) continue
    isAsked = true
    consoles++
    for (const pid of attached) asked.add(pid)
  }
  answer(`${id} ${consoles}`)
  await leave()
}
