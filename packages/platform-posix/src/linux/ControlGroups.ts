/** Ending and removing control groups (cgroups(7)): used by hosts, and by the sweeper, so it imports Node only. */
import * as fs from "node:fs"
import * as path from "node:path"

/** The names of the groups of a host's trees; none when another host of the same user has been faster. */
const treesIn = (folder: string): ReadonlyArray<string> => {
  try {
    return fs.readdirSync(folder).filter((name) => /^\d+$/.test(name))
  } catch {
    return []
  }
}

/** A program in a tree may make groups inside its own, and any number of them: at once as many are looked at. */
const mostGroups = 200

/** The groups inside a group, then itself, so that each comes after those inside it. */
function* innermostFirst(folder: string): Generator<string> {
  let entries: ReadonlyArray<fs.Dirent> = []
  try {
    entries = fs.readdirSync(folder, { withFileTypes: true })
  } catch {
    // removed meanwhile
  }
  for (const entry of entries) if (entry.isDirectory()) yield* innermostFirst(path.join(folder, entry.name))
  yield folder
}

/** A group and those inside it, each after those inside it. */
export const groupsOf = (folder: string): ReadonlyArray<string> => {
  const found: Array<string> = []
  for (const group of innermostFirst(folder)) if (found.push(group) >= mostGroups) break
  return found
}

/** Removes a single group; false while something holds it (EBUSY): a group inside, a living task, or for a moment a dying one. */
const removeOne = (folder: string): boolean => {
  try {
    fs.rmdirSync(folder)
    return true
  } catch (error) {
    return (error as NodeJS.ErrnoException).code !== "EBUSY"
  }
}

/** Removes a group with those inside it; false while something holds one. */
const tryRemove = (folder: string): boolean => {
  if (removeOne(folder)) return true
  groupsOf(folder).forEach(removeOne)
  return removeOne(folder)
}

/** Between tries, in ms: a quarter of a second in all. */
const pauses = [1, 2, 4, 8, 16, 32, 64, 128]

/** Removes a group with those inside it, when nothing lives there any more; gives up on one that somebody holds. */
export const removeGroup = async (folder: string): Promise<void> => {
  for (const pause of pauses) {
    if (tryRemove(folder)) return
    await new Promise((resolve) => setTimeout(resolve, pause))
  }
  tryRemove(folder)
}

/** The same for a program that has nothing else to do. */
const removeGroupSync = (folder: string): void => {
  for (const pause of pauses) {
    if (tryRemove(folder)) return
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, pause)
  }
  tryRemove(folder)
}

/** Whether somebody lives in a group or in one inside it. */
export const isPopulated = (folder: string): boolean => {
  try {
    return /^populated 1$/m.test(fs.readFileSync(path.join(folder, "cgroup.events"), "utf8"))
  } catch {
    return false
  }
}

/**
 * Removes the groups of a dead host's trees that nobody lives in, and its own when none is left. Who lives there may do so
 * by intention (a released tree); who has to end is ended by the guardian or the sweeper, which know the host's record.
 */
export const removeBare = (folder: string): void => {
  for (const name of treesIn(folder)) if (!isPopulated(path.join(folder, name))) tryRemove(path.join(folder, name))
  removeOne(folder)
}

/** Kills what is in the groups of those trees that have to end, and removes them, and their host's group when it is bare. */
export const removeGroups = (folder: string, ends: (tree: number) => boolean): void => {
  for (const name of treesIn(folder)) {
    if (!ends(Number(name))) continue
    const group = path.join(folder, name)
    try {
      fs.writeFileSync(path.join(group, "cgroup.kill"), "1")
    } catch {
      continue
    }
    removeGroupSync(group)
  }
  // Not what is inside it: a released tree may have groups of its own, empty ones too.
  removeOne(folder)
}
