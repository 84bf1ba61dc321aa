export * as Errors from "./Errors.ts"
export * as PoolEntity from "./PoolEntity.ts"
export * as ShardLease from "./ShardLease.ts"
export * as Watchdog from "./Watchdog.ts"
