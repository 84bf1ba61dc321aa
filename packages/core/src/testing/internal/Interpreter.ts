/**
 * Runs the instructions of a process until it has to wait. An instruction that waits is run again when the process is
 * woken, and keeps in its frame what it has done already, so a trap may interrupt it at any point.
 */
import type { Instruction } from "../Program.ts"
import { type File, type Frame, isRunnable, type Process, type System } from "./Process.ts"
import { encode } from "./Text.ts"

/**
 * What a process may do in one ms: instructions, and KiB written. So a program that never waits takes time, and can't
 * stop the clock.
 */
const budgetPerMs = 1024

const filler = new Uint8Array(64 * 1024).fill(120)

/** True when the process may go on; else it sleeps until the next ms. */
const spend = (system: System, process: Process, cost: number): boolean => {
  const now = system.now()
  if (process.budgetAt !== now) {
    process.budgetAt = now
    process.budget = budgetPerMs
  }
  if (process.budget <= 0) {
    system.wakeAt(process, now + 1)
    return false
  }
  process.budget -= cost
  return true
}

type Written = "all" | "blocked" | "broken"

/** Writes on from `frame.progress` bytes. */
const writeOut = (
  system: System,
  process: Process,
  fd: number,
  length: number,
  from: number,
  bytes: (from: number) => Uint8Array,
  advance: (to: number) => void
): Written => {
  const file = process.files.get(fd)
  let done = from
  while (done < length) {
    if (file === undefined || (file.writes === undefined && file.host === undefined)) return "all"
    if (file.writes === undefined) {
      const chunk = bytes(done)
      file.host!(chunk)
      done += chunk.length
      advance(done)
      continue
    }
    if (file.writes.readers === 0) {
      system.raise(process, "SIGPIPE")
      return "broken"
    }
    const chunk = bytes(done)
    if (!spend(system, process, chunk.length / 1024)) return "blocked"
    const taken = file.writes.write(chunk)
    done += taken
    advance(done)
    if (taken < chunk.length && done < length) {
      file.writes.wait(process.wake)
      return "blocked"
    }
  }
  return "all"
}

/** What a descriptor gives: something to read, its end, or nothing yet. */
const readable = (process: Process, file: File | undefined): "data" | "end" | "blocked" => {
  const pipe = file?.reads
  if (pipe === undefined) return "end"
  if (pipe.size > 0) return "data"
  if (pipe.writers === 0) return "end"
  pipe.wait(process.wake)
  return "blocked"
}

const placeholder = /\{(pid|parent|child|leader|cwd|env:([^}]*))\}/g

const fill = (process: Process, text: string): string =>
  text.replace(placeholder, (_, name: string, variable: string | undefined) => {
    switch (name) {
      case "pid":
        return String(process.pid)
      case "parent":
        return String(process.parent?.pid ?? 0)
      case "child":
        return String(process.lastChild?.pid ?? 0)
      case "leader":
        return String(process.launch?.leader.pid ?? 0)
      case "cwd":
        return process.cwd
      default:
        return process.env[variable ?? ""] ?? "unset"
    }
  })

/** True when the instruction is done, and false when it waits or the process can't go on. */
const execute = (system: System, process: Process, frame: Frame, instruction: Instruction): boolean => {
  switch (instruction._tag) {
    case "Sleep": {
      const until = (frame.progress as number | undefined) ?? system.now() + instruction.ms
      frame.progress = until
      if (system.now() >= until - 0.001) return true
      system.wakeAt(process, until)
      return false
    }
    case "Endure":
      return false
    case "Write":
    case "Print": {
      const bytes = (frame.progress as Uint8Array | undefined) ??
        encode(instruction._tag === "Write" ? instruction.text : fill(process, instruction.text))
      frame.progress = bytes
      return writeOut(system, process, instruction.fd, bytes.length, 0, (from) => bytes.subarray(from), (to) => {
        frame.progress = bytes.subarray(to)
      }) !== "blocked"
    }
    case "WriteBytes": {
      const done = (frame.progress as number | undefined) ?? 0
      return writeOut(
        system,
        process,
        instruction.fd,
        instruction.bytes,
        done,
        (from) => filler.subarray(0, Math.min(filler.length, instruction.bytes - from)),
        (to) => {
          frame.progress = to
        }
      ) !== "blocked"
    }
    case "Read":
    case "ReadToEnd": {
      const file = process.files.get(instruction.fd)
      while (true) {
        const state = readable(process, file)
        if (state !== "data") return state === "end"
        if (!spend(system, process, 1)) return false
        if (instruction._tag === "ReadToEnd") file!.reads!.read()
        else if (file!.reads!.readLine()) return true
      }
    }
    case "Copy": {
      const file = process.files.get(instruction.from)
      while (true) {
        let rest = frame.progress as Uint8Array | undefined
        if (rest === undefined) {
          const state = readable(process, file)
          if (state !== "data") return state === "end"
          if (!spend(system, process, 1)) return false
          rest = file!.reads!.read()
        }
        frame.progress = rest
        const bytes = rest
        const written = writeOut(
          system,
          process,
          instruction.to,
          bytes.length,
          0,
          (from) => bytes.subarray(from),
          (to) => {
            frame.progress = bytes.subarray(to)
          }
        )
        if (written !== "all") return written === "broken"
        frame.progress = undefined
      }
    }
    case "Close":
      system.close(process, instruction.fd)
      return true
    case "Fork":
      system.fork(process, instruction.program)
      return true
    case "Daemonise": {
      // The process in between leaves its session and ends once it has a child; it is reaped here.
      const between = (frame.progress as Process | undefined) ??
        system.fork(process, [{ _tag: "Setsid" }, { _tag: "Fork", program: instruction.program }])
      frame.progress = between
      if (between === undefined) return true
      if (between.status === undefined) return false
      system.reap(between)
      return true
    }
    case "Setsid":
      system.setsid(process)
      return true
    case "Setpgid":
      system.setpgid(process)
      return true
    case "Exec":
      system.exec(process, instruction.program)
      return true
    case "WaitChildren": {
      for (const child of process.children) if (child.status !== undefined) system.reap(child)
      return process.children.size === 0
    }
    case "Trap":
      system.trap(process, instruction.signal, instruction.program)
      return true
    case "Ignore":
      for (const signal of instruction.signals) system.trap(process, signal, "ignore")
      return true
    case "Raise":
      system.raise(process, instruction.signal)
      return true
    case "Listen":
      if (!system.listen(process, instruction)) system.exit(process, 1)
      return true
    case "StopListening":
      system.stopListening(process, instruction.port)
      return true
    case "Loop":
      if (instruction.times === "forever" || instruction.times > 0) {
        process.frames.push({
          program: instruction.body,
          index: 0,
          times: instruction.times === "forever" ? Number.POSITIVE_INFINITY : instruction.times,
          handles: undefined,
          progress: undefined
        })
      }
      return true
    case "Exit":
      system.exit(process, instruction.code)
      return true
    case "Protect":
      process.protected = true
      return true
    case "Linger":
      process.linger = instruction.ms
      return true
    case "Hang":
      process.hanging = true
      return true
    case "Shed":
      system.shed(process, instruction.what)
      return true
  }
}

/** Runs a process until it waits, is stopped, or has ended. */
export const run = (system: System, process: Process): void => {
  while (isRunnable(process)) {
    const frame = process.frames.at(-1)
    if (frame === undefined) return system.exit(process, 0)
    if (!spend(system, process, 1)) return
    const instruction = frame.program[frame.index]
    if (instruction === undefined) {
      if (frame.times > 1) {
        frame.times--
        frame.index = 0
        continue
      }
      process.frames.pop()
      if (frame.handles !== undefined) system.handled(process, frame.handles)
      continue
    }
    if (!execute(system, process, frame, instruction)) return
    // A trap that the instruction set off lies above this frame and does not run it again.
    frame.index++
    frame.progress = undefined
  }
}
