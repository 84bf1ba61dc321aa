export * as NodeNetwork from "./NodeNetwork.ts"
export * as NodePipes from "./NodePipes.ts"
