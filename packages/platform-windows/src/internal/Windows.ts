/** Windows on the screen: WM_CLOSE is the wish to end that every program with a window knows. */
import * as Kernel32 from "./Kernel32.ts"
import type { Handle } from "./Structs.ts"

/** More windows than a desktop has; the list may change while it is read. */
const mostWindows = 100_000

/** How often the list is read from its beginning again, because the window that was read last has gone. */
const mostStarts = 10

/** Posts WM_CLOSE to the visible windows of these processes that belong to no other window; whether there were any. */
export const requestClose = (kernel: Kernel32.Kernel32, pids: ReadonlySet<number>): boolean => {
  const user32 = kernel.user32()
  const pid = new Uint32Array(1)
  let asked = false
  const done = new Set<Handle>()
  let window: Handle = 0
  for (let seen = 0, starts = 1; seen < mostWindows; seen++) {
    window = user32.FindWindowExW(0, window, null, null)
    if (Kernel32.isInvalid(window)) {
      if (kernel.lastError() !== Kernel32.ERROR_INVALID_WINDOW_HANDLE || starts++ === mostStarts) break
      window = 0
      continue
    }
    if (done.has(window)) continue
    user32.GetWindowThreadProcessId(window, pid)
    if (!pids.has(pid[0]!) || user32.IsWindowVisible(window) === 0) continue
    if (!Kernel32.isInvalid(user32.GetWindow(window, Kernel32.GW_OWNER))) continue
    if (user32.PostMessageW(window, Kernel32.WM_CLOSE, 0, 0) === 0) continue
    asked = true
    done.add(window)
  }
  return asked
}
