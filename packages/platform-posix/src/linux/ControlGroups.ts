/** Ending and removing control groups (cgroups(7)): used by hosts, and by the sweeper, so it imports Node only. */
import * as fs from "node:fs"
import * as path from "node:path"

const tries = 100

/** The names of the groups of a host's trees; none when another host of the same user has been faster. */
const treesIn = (folder: string): ReadonlyArray<string> => {
  try {
    return fs.readdirSync(folder).filter((name) => /^\d+$/.test(name))
  } catch {
    return []
  }
}

/** False while something holds the group (EBUSY): a dying task for a moment, a living one or a group inside for longer. */
const tryRemove = (folder: string): boolean => {
  try {
    fs.rmdirSync(folder)
    return true
  } catch (error) {
    return (error as NodeJS.ErrnoException).code !== "EBUSY"
  }
}

/** Removes a group that nothing lives in; dying tasks may hold it for a moment (EBUSY). */
export const removeGroup = (folder: string): void => {
  for (let attempt = 0; attempt < tries; attempt++) {
    if (tryRemove(folder)) return
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 1)
  }
}

/**
 * Removes the groups of a dead host's trees that nobody lives in, and its own when none is left. Who lives there may do so
 * by intention (a released tree); who has to end is ended by the guardian or the sweeper, which know the host's record.
 */
export const removeBare = (folder: string): void => {
  for (const name of treesIn(folder)) tryRemove(path.join(folder, name))
  tryRemove(folder)
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
    removeGroup(group)
  }
  removeGroup(folder)
}
