/** Services from a configuration: what the commands of `treeline` use, for programs of one's own. */
export * from "@treeline/core/daemon"
export {
  NodeControl,
  NodeDetached,
  NodeManagedInstall,
  NodeReplace,
  NodeStateFolder,
  StateDirectory
} from "@treeline/platform-node"
export * as ConfigFile from "./ConfigFile.ts"
