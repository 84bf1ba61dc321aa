/** What can be chosen about the Windows platform; everything has a default. */
export interface Options {
  /**
   * What becomes of launches where job objects can't be had, because koffi does not load, in a Worker, or because this
   * host is in a job that takes no further ones: `refuse` them with `ContainmentUnavailable`, or start them at level `group`, where
   * taskkill ends what still hangs together. A launch that requires no more than `group` is started in both cases.
   * Default `refuse`.
   */
  readonly withoutJobs?: "refuse" | "group" | undefined
  /**
   * `portable` uses no native code, as where koffi does not load. Default: `native`. The environment variable
   * TREELINE_ENGINE=portable says the same from outside.
   */
  readonly engine?: "native" | "portable" | undefined
}
