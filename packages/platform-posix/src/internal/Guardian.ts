/**
 * The host's side of its guardian: starts it with the first launch, tells it every leader, starts another when it dies.
 */
import type { Mechanism } from "@treeline/core/Containment"
import * as Descriptors from "@treeline/platform-node/Descriptors"
import * as child_process from "node:child_process"
import * as fs from "node:fs"
import { fileURLToPath } from "node:url"
import { isMainThread } from "node:worker_threads"
import { guardianScript } from "./guardianScript.ts"
import type { Dead, HostRecord } from "./HostRecord.ts"
import * as Ledger from "./Ledger.ts"
import * as ProcTable from "./ProcTable.ts"
import * as Tag from "./Tag.ts"

/** The sweeper beside this module: TypeScript in the sources, JavaScript when published. */
export const sweeperPath = fileURLToPath(
  new URL(import.meta.url.endsWith(".ts") ? "../sweeper.ts" : "../sweeper.js", import.meta.url)
)

export interface GuardianOptions {
  readonly shell: string
  readonly host: Tag.TagHost
  /** The tag can be set here. */
  readonly tagged: boolean
  /** How long the processes of a dead host have between SIGTERM and SIGKILL, in ms. */
  readonly grace: number
  /** Told once that it can't be started, for people. */
  readonly warn: (message: string) => void
  readonly openRecord: () => HostRecord | undefined
}

type Leader = Ledger.Leader

/** How long a tree lives before the guardian is told of it, where it would be found without, in ms. */
const registrationPause = 20

/** The ends of this time, in ms, are told together. */
const endsPause = 5

/** At most one new guardian in this time, so that a system that can't run one is not flooded, in ms. */
const restartPause = 100

export class Guardian {
  private readonly options: GuardianOptions
  private child: child_process.ChildProcess | undefined = undefined
  private record: HostRecord | undefined = undefined
  /** Lines since the record was last written anew. */
  private recordLines = 0
  /** Why none runs, although one should. */
  private problem: string | undefined = undefined
  private warned = false
  private closing = false
  private closeWhenIdle = false
  private restart: NodeJS.Timeout | undefined = undefined
  private readonly trees = new Map<number, Leader | undefined>()
  private readonly kept = new Set<number>()
  private groups: string | undefined = undefined
  private readonly untold = new Map<number, Leader | undefined>()
  private flush: NodeJS.Timeout | undefined = undefined
  /** Ends that are told with the end of this turn, or before the next line. */
  private ends = ""
  /** How many guardians were started; above 1 when one has died. */
  starts = 0

  constructor(options: GuardianOptions) {
    this.options = options
  }

  /** What it is good for now; one that has not been needed yet counts. */
  get mechanism(): Mechanism {
    const detail = this.problem ?? `${this.options.shell} ends every tree when the host has gone`
    return { name: "guardian", available: this.problem === undefined, detail }
  }

  /** The guardian's pid, while it lives. */
  get pid(): number | undefined {
    return this.child?.pid
  }

  /** Starts the guardian when none runs; called before every launch. */
  ensure(): void {
    if (this.child === undefined && this.restart === undefined) this.start()
  }

  private start(): void {
    const { grace, host, shell, tagged } = this.options
    this.restart = undefined
    this.closing = false
    let child: child_process.ChildProcess
    let nothing: number | undefined = undefined
    try {
      this.record ??= this.options.openRecord()
      nothing = fs.openSync("/dev/null", "r")
      // No environment but PATH: with the host's own it would look like a member of an outer tree. The program is
      // passed by a variable, so that `ps` shows a short command.
      child = child_process.spawn(shell, [
        "-c",
        "eval \"$TREELINE_GUARDIAN\"",
        "treeline-guardian",
        tagged ? Tag.encode(host, 0) : "-",
        Tag.prefix(host),
        String(host.pid),
        String(host.start),
        String(Math.round(grace)),
        process.execPath,
        sweeperPath,
        this.record?.path ?? "-"
      ], {
        // Its pipe, and nothing of the host.
        stdio: Descriptors.only(["pipe", "ignore", "ignore"], nothing),
        cwd: "/",
        detached: true,
        env: { PATH: process.env["PATH"] ?? "/bin:/usr/bin", TREELINE_GUARDIAN: guardianScript }
      })
    } catch (error) {
      this.failed(error)
      return this.startLater()
    } finally {
      if (nothing !== undefined) fs.closeSync(nothing)
    }
    child.stdin?.on("error", () => {}) // it has died; `exit` follows
    // Without a descriptor left there is no pid, and not even a stdin; the error is told later.
    if (child.pid === undefined) {
      child.on("error", (error) => this.failed(error))
      return this.startLater()
    }
    this.starts++
    this.child = child
    this.problem = undefined
    child.on("error", () => {}) // a failed kill
    child.on("exit", () => {
      if (this.child !== child) return
      this.child = undefined
      if (this.closing) return
      this.problem = `${shell} has ended, and is started again`
      this.startLater()
    })
    child.unref()
    ;(child.stdin as unknown as { unref: () => void }).unref()
    this.untold.clear()
    this.ends = ""
    const state = this.state()
    this.record?.write(state)
    child.stdin!.write(state)
  }

  private failed(error: unknown): void {
    const problem = `${this.options.shell} can't be started: ${error instanceof Error ? error.message : String(error)}`
    this.problem = problem
    if (this.warned) return
    this.warned = true
    this.options.warn(`a tree would outlive a host that is killed now, until its guardian can be started: ${problem}`)
  }

  private startLater(): void {
    this.restart = setTimeout(() => this.start(), restartPause)
    this.restart.unref()
  }

  /** Everything that is true now. */
  private state(): string {
    const guardian = this.child?.pid
    return [
      ...(guardian === undefined
        ? []
        : [Ledger.guardedBy({ pid: guardian, start: ProcTable.readStat(guardian)?.start ?? 0 })]),
      ...[...this.trees].map(([tree, leader]) => Ledger.started(tree, leader)),
      ...[...this.kept].map(Ledger.released),
      ...(this.groups === undefined ? [] : [Ledger.sealedIn(this.groups)])
    ].join("")
  }

  /**
   * Where the tag is, a tree that is not registered is found all the same, so short-lived ones need no registration: the
   * guardian is told together of those that have lived for a moment.
   */
  private tellSoon(tree: number, leader: Leader | undefined): void {
    if (!this.options.tagged || !isMainThread) return this.tell(Ledger.started(tree, leader))
    this.untold.set(tree, leader)
    this.flush ??= setTimeout(() => this.tellUntold(), registrationPause).unref()
  }

  private tellUntold(): void {
    this.flush = undefined
    const lines = [...this.untold].map(([tree, leader]) => Ledger.started(tree, leader)).join("")
    this.untold.clear()
    if (lines !== "") this.tell(lines)
  }

  /** A write wakes the guardian, which takes the processor from the host: the ends of 1,000 trees are few writes. */
  private tellEnd(tree: number): void {
    if (this.ends === "") setTimeout(() => this.tellEnds(), endsPause).unref()
    this.ends += Ledger.ended(tree)
  }

  private tellEnds(): void {
    const lines = this.ends
    this.ends = ""
    if (lines !== "") this.tell(lines)
  }

  private tell(line: string): void {
    this.tellEnds()
    this.child?.stdin?.write(line)
    this.recordLines++
    if (this.recordLines > 1000 + 4 * (this.trees.size + this.kept.size)) {
      this.recordLines = 0
      this.record?.rewrite(this.state())
    } else this.record?.write(line)
  }

  /** A tree is running; `leader` is absent where it has no group of its own. */
  started(tree: number, leader: Leader | undefined): void {
    this.trees.set(tree, leader)
    this.tellSoon(tree, leader)
  }

  ended(tree: number): void {
    if (this.trees.delete(tree) && !this.untold.delete(tree)) this.tellEnd(tree)
    if (this.kept.delete(tree)) this.tell(Ledger.takenBack(tree))
    if (this.closeWhenIdle) this.close()
  }

  /** A tree that outlives the host on purpose: its group is nobody's business any more. */
  released(tree: number): void {
    this.ended(tree)
    this.kept.add(tree)
    this.tell(Ledger.released(tree))
  }

  takenBack(tree: number, leader: Leader | undefined): void {
    if (!this.kept.delete(tree)) return
    this.tell(Ledger.takenBack(tree))
    this.started(tree, leader)
  }

  /** Trees may be held in control groups below this folder. */
  sealedIn(folder: string): void {
    this.groups = folder
    this.tell(Ledger.sealedIn(folder))
  }

  /** Ends the guardian when nothing is left to guard: a tree may outlive the scope of its platform. */
  close(): void {
    this.closeWhenIdle = this.trees.size > 0
    if (this.closeWhenIdle) return
    this.tellEnds()
    this.closing = true
    clearTimeout(this.restart)
    clearTimeout(this.flush)
    this.flush = undefined
    this.child?.stdin?.end("Q\n")
    this.child = undefined
    // A tree that lives on keeps the record, or the next host could not know that it was released.
    if (this.kept.size === 0) this.record?.remove()
    else this.record?.close()
    this.record = undefined
  }
}

/**
 * Sweeps what dead hosts have left, by the same program that the guardian uses; returns when it has ended, with what went
 * wrong.
 */
export const sweepOrphaned = (hosts: ReadonlyArray<Dead>, grace: number): Promise<ReadonlyArray<string>> =>
  Promise.all(hosts.map(({ host, paths }) =>
    new Promise<string | undefined>((resolve) => {
      // The sweeper finds the other records of a host by one of them.
      const args = [sweeperPath, String(host.pid), String(host.start), String(Math.round(grace)), paths[0]!]
      const child = child_process.execFile(process.execPath, args, { timeout: 30_000 }, (error) => {
        // A record that makes the sweeper fail would be tried by every host for ever.
        if (error === null) return resolve(undefined)
        for (const path of paths) fs.rmSync(path, { force: true })
        resolve(`what host ${host.pid} left behind was not swept: ${error.message}`)
      })
      child.unref()
    })
  )).then((problems) => problems.filter((problem) => problem !== undefined))
