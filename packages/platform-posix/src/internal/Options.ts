/** What can be chosen about a POSIX platform; everything has a default. */
export interface Options {
  /** How long the trees of a host that died have between SIGTERM and SIGKILL, in ms. Default 500. */
  readonly hostDeathGrace?: number | undefined
  /** The shell of the guardian and of `shell: true`. Default `/bin/sh`. */
  readonly shell?: string | undefined
  /** Whether trees that a killed host and guardian left behind are ended at the start. Default true. */
  readonly sweepOrphaned?: boolean | undefined
  /**
   * `native` calls the C library through koffi (Linux), `portable` uses Node's child_process. Default: `native` where it
   * works, which is not in a Worker. The environment variable TREELINE_ENGINE=portable says the same from outside.
   */
  readonly engine?: "native" | "portable" | undefined
  /** What seals a tree (native engine). Default: a control group where one can be made, else a pid namespace. */
  readonly seal?: "cgroup" | "pid-namespace" | undefined
  /** Where the portable engine looks processes up. Default: `/proc` where it is Linux's, else `ps`. */
  readonly table?: "proc" | "ps" | undefined
  /** Whether the unclearable tag is used where it can be. Default true. */
  readonly tag?: boolean | undefined
}
