/** What the demo prints: at most 80 columns, colours only where the terminal and NO_COLOR allow them. */
import { styleText } from "node:util"
import type { Member } from "./Tree.ts"

type Style = Parameters<typeof styleText>[0]

/** `styleText` itself looks at the stream and at NO_COLOR. */
const paint = (style: Style, text: string): string => styleText(style, text)

const print = (line: string): void => console.log(line.trimEnd())

export const heading = (text: string): void => {
  print("")
  print(paint("bold", `── ${text} ${"─".repeat(Math.max(0, 76 - text.length))}`))
}

/** A sentence of explanation. */
export const say = (text: string): void => print(`   ${text}`)

const at = (ms: number): string => paint("cyan", `   ${String(Math.round(ms)).padStart(5)} ms`)

/** Something that the host does, with its time in ms since the beginning of the end. */
export const action = (ms: number, what: string): void => print(`${at(ms)}  ${paint("bold", what)}`)

/** What follows from it. */
export const effect = (ms: number, what: string): void => print(`${at(ms)}    ${what}`)

const row = (branch: string, name: string, pid: string, session: string, group: string, note: string): void => {
  const gap = " ".repeat(Math.max(1, 18 - branch.length - name.length))
  const numbers = `${pid.padStart(7)}   ${session.padEnd(7)}  ${group.padEnd(7)}`
  print(`   ${paint("dim", branch)}${paint("bold", name)}${gap}${numbers} ${paint("dim", note)}`)
}

/** Draws members as a tree under their host; who has lost its parent hangs on a dotted line. */
export const tree = (host: { readonly name: string; readonly pid: number }, members: ReadonlyArray<Member>): void => {
  const known = new Set(members.map(({ info }) => info.pid))
  row("", "", "pid", "session", "group", "")
  row("", host.name, String(host.pid), "", "", "the host")
  const roots = members.filter(({ info }) => !known.has(info.parent))
  const draw = ({ info, name, note }: Member, prefix: string, last: boolean): void => {
    // Its own parent has gone: it has come to process 1, or to the host where that adopts orphans.
    const orphan = !known.has(info.parent) && note !== "the leader"
    const branch = `${prefix}${last ? "└" : "├"}${orphan ? "╌ " : "─ "}`
    const [pid, session, group] = [info.pid, info.session, info.group].map(String) as [string, string, string]
    row(branch, name, pid, session, group, orphan ? `${note}, parent: ${info.parent}` : note)
    const children = members.filter((member) => member.info.parent === info.pid)
    for (const [index, child] of children.entries()) {
      draw(child, `${prefix}${last ? "   " : "│  "}`, index === children.length - 1)
    }
  }
  for (const [index, root] of roots.entries()) draw(root, "", index === roots.length - 1)
}

/** Names of members, for a sentence. */
export const names = (members: ReadonlyArray<Member>): string => members.map(({ name }) => name).join(", ")

/** The verdict: who is left. */
export const left = (members: ReadonlyArray<Member>, of: number): void =>
  print(
    members.length === 0
      ? paint("green", `   ✔ nothing is left: 0 of ${of} processes`)
      : paint("red", `   ✘ left running: ${members.length} of ${of}: ${names(members)}`)
  )

/** One line of the table at the end. */
export const result = (what: string, treeline: string, node: string): void =>
  print(`   ${what.padEnd(34)} ${treeline.padEnd(16)} ${node}`)
