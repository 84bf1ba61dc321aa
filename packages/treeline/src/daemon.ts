/** Services from a configuration: what the commands of `treeline` use, for programs of one's own. */
export * from "@treeline/core/daemon"
export * as ConfigFile from "./ConfigFile.ts"
