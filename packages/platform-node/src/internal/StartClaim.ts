/**
 * Which of several starters prepares an address: the one whose room is in the folder of the claim.
 *
 * A room has a name of its own and comes into the folder together with it, in one step, as a folder that is not empty is
 * never replaced (rename(2)). So whoever is stopped for so long that another one takes its claim finds, when it goes on,
 * that its room is gone, and nothing that it does in it by its path can meet the other one's.
 */
import { randomBytes } from "node:crypto"
import * as fs from "node:fs"
import * as path from "node:path"

/** How old a claim is that was left behind, in ms. */
export const stale = 10_000

/** How long a starter waits for another one that is at it, in ms: until a claim that was left behind is stale. */
export const within = stale + 2000

const codeOf = (error: unknown): string | undefined => (error as NodeJS.ErrnoException).code

/** Ignores these codes. */
const except = (codes: ReadonlyArray<string>, act: () => void): void => {
  try {
    act()
  } catch (error) {
    if (!codes.includes(codeOf(error) ?? "")) throw error
  }
}

/** There is another one in the place, or in the folder. Windows says that access is denied. */
const occupied = ["ENOTEMPTY", "EEXIST", ...process.platform === "win32" ? ["EPERM", "EACCES", "EBUSY"] : []]

const removeEmpty = (folder: string): void => except(["ENOENT", ...occupied], () => fs.rmdirSync(folder))

/** Removes the folders in a folder that are too old to be anybody's. A room is removed by its own name: no other is met. */
const removeStale = (folder: string, prefix = ""): void => {
  let names: ReadonlyArray<string> = []
  except(["ENOENT", "ENOTDIR"], () => {
    names = fs.readdirSync(folder)
  })
  for (const name of names) {
    if (!name.startsWith(prefix)) continue
    const there = fs.lstatSync(path.join(folder, name), { throwIfNoEntry: false })
    if (there === undefined || Date.now() - there.mtimeMs <= stale) continue
    // Its starter may wake up in this moment and put something in.
    except(occupied, () => fs.rmSync(path.join(folder, name), { recursive: true, force: true }))
  }
}

/** A claim that was won. */
export class StartClaim {
  /** For what is prepared: a file that is made here and renamed into its place gets there only while the claim holds. */
  readonly room: string
  private readonly folder: string

  constructor(folder: string, room: string) {
    this.folder = folder
    this.room = room
  }

  /** Whether nobody else has taken it. */
  get holds(): boolean {
    return fs.existsSync(this.room)
  }

  /** Gives it back; another one's is left alone. */
  release(): void {
    fs.rmSync(this.room, { recursive: true, force: true })
    removeEmpty(this.folder)
  }
}

/** The claim, or undefined while another one has it. Both names are short: the path of a socket is. */
export const attempt = (folder: string): StartClaim | undefined => {
  const name = randomBytes(2).toString("hex")
  const drafts = `${path.basename(folder)}-`
  const draft = path.join(path.dirname(folder), `${drafts}${randomBytes(4).toString("hex")}`)
  if (fs.existsSync(folder)) {
    removeStale(folder)
    removeEmpty(folder)
    if (fs.existsSync(folder)) return undefined
  }
  try {
    fs.mkdirSync(draft, { mode: 0o700 })
    fs.mkdirSync(path.join(draft, name), { mode: 0o700 })
    fs.renameSync(draft, folder)
  } catch (error) {
    fs.rmSync(draft, { recursive: true, force: true })
    if (occupied.includes(codeOf(error) ?? "")) return undefined
    throw error
  }
  // Of starters that were killed before they had one.
  removeStale(path.dirname(folder), drafts)
  return new StartClaim(folder, path.join(folder, name))
}
