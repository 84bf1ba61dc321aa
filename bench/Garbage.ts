import * as v8 from "node:v8"
import * as vm from "node:vm"

v8.setFlagsFromString("--expose-gc")
const gc = vm.runInNewContext("gc") as () => void

/** Collects all garbage, so that what is measured next does not pay for what was measured before. */
export const collect = (): void => {
  gc()
  gc()
}
