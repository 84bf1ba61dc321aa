/** Ending and removing control groups (cgroups(7)): used by hosts, and by the sweeper, so it imports Node only. */
import * as fs from "node:fs"
import * as path from "node:path"

const tries = 100

/** Removes a group that nothing lives in; dying tasks may hold it for a moment (EBUSY). */
export const removeGroup = (folder: string): void => {
  for (let attempt = 0; attempt < tries; attempt++) {
    try {
      fs.rmdirSync(folder)
      return
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "EBUSY") return
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 1)
    }
  }
}

/** Kills what is in the groups of those trees that have to end, and removes them, and their host's group when it is bare. */
export const removeGroups = (folder: string, ends: (tree: number) => boolean): void => {
  let names: ReadonlyArray<string>
  try {
    names = fs.readdirSync(folder).filter((name) => /^\d+$/.test(name))
  } catch {
    return // another host of the same user has been faster
  }
  for (const name of names) {
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
