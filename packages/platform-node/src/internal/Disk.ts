/** What a disk and its system ask for. */
import * as fs from "node:fs/promises"

/** On Windows a file that somebody else has open can't be replaced for a moment: a virus scanner, a reader. */
export const retries = process.platform === "win32" ? 20 : 0
const retryPause = 25

/** The code of an error of the system, or nothing. */
export const codeOf = (error: unknown): string => (error as NodeJS.ErrnoException).code ?? ""

/** What Windows says of a file that is open. */
export const busy: ReadonlySet<string> = new Set(["EPERM", "EACCES", "EBUSY"])

/** Tries again for half a second where that may help. */
export const persistently = async <A>(attempt: () => Promise<A>): Promise<A> => {
  for (let left = retries;; left--) {
    try {
      return await attempt()
    } catch (error) {
      if (left === 0 || !busy.has(codeOf(error))) throw error
      await new Promise((resolve) => setTimeout(resolve, retryPause))
    }
  }
}

/** A new name is on the disk when its folder is (fsync(2)). Windows opens no folders, and some file systems sync none. */
export const syncFolder = async (folder: string): Promise<void> => {
  if (process.platform === "win32") return
  const handle = await fs.open(folder, "r")
  try {
    await handle.sync().catch((error: unknown) => {
      if (codeOf(error) !== "EINVAL") throw error
    })
  } finally {
    await handle.close()
  }
}
