/** What the example prints: one line for each event, at most 80 columns. */
import { ChildEnd, type ChildStatus, type Supervisor } from "@treeline/core"
import { styleText } from "node:util"

type Style = Parameters<typeof styleText>[0]

const width = 80

/** `styleText` itself looks at the stream and at NO_COLOR. */
const line = (time: string, who: string, what: string, style?: Style): void => {
  const indent = `${time.padStart(8)}  ${who.padEnd(8)}`
  // A long reason goes on in the next line.
  const words = what.split(" ")
  const rows = [""]
  for (const word of words) {
    const row = rows.at(-1)!
    if (row !== "" && indent.length + row.length + 1 + word.length > width) rows.push(`  ${word}`)
    else rows[rows.length - 1] = row === "" ? word : `${row} ${word}`
  }
  for (const [index, row] of rows.entries()) {
    const before = index === 0
      ? styleText("cyan", time.padStart(8)) + "  " + styleText("bold", who.padEnd(8))
      : " ".repeat(18)
    console.log(`${before}${style === undefined ? row : styleText(style, row)}`.trimEnd())
  }
}

let startedAt = Date.now()
const timeOf = (at: number) => `${((at - startedAt) / 1000).toFixed(2)} s`

/** Times are counted from here. */
export const begin = (): void => {
  startedAt = Date.now()
}

/** Something that the example itself does. */
export const action = (what: string): void => line(timeOf(Date.now()), "", what, "bold")

export const heading = (text: string): void => {
  console.log("")
  console.log(styleText("bold", `── ${text} ${"─".repeat(Math.max(0, width - 4 - text.length))}`))
}

/** The verdict. */
export const left = (count: number, of: number): void =>
  line(
    timeOf(Date.now()),
    "",
    count === 0 ? `✔ nothing is left: 0 of ${of} processes` : `✘ left running: ${count} of ${of}`,
    count === 0 ? "green" : "red"
  )

const child = ({ at, change, child, incarnation }: ChildStatus.ChildEvent): void => {
  const say = (what: string, style?: Style) => line(timeOf(at), child, what, style)
  if (change._tag === "Health") {
    return change.detail === null
      ? say(`is ${change.health}`, "green")
      : say(`is ${change.health}: ${change.detail}`, "yellow")
  }
  if (change._tag !== "State") return
  const { from, to } = change
  switch (to._tag) {
    case "Waiting":
      return say(`waits for: ${to.on.join(", ")}`, "dim")
    case "Starting":
      return say(incarnation === 1 ? "starts" : `starts again, incarnation ${incarnation}`)
    case "Running":
      return say(`is up, pid ${to.pid}`)
    case "Ready":
      return say("is ready", "green")
    case "Stopping":
      if (from._tag !== "Stopping") {
        return to.why === "stop" ? say("is asked to stop") : say(`goes down: ${to.why}`, "yellow")
      }
      return say(`  at the step: ${to.step}`)
    case "BackingOff":
      return say(`backs off for ${Math.round(to.until - at)} ms, restart ${to.attempt} in a row`)
    case "Stopped":
      return to.end === null ? say("is stopped") : say(`is done: ${ChildEnd.describe(to.end)}`, "green")
    case "Failed":
      return say(to.error.message, "red")
  }
}

/** Tells what has happened. */
export const event = (event: Supervisor.SupervisorEvent): void => {
  if (event._tag === "Child") child(event.event)
  else if (event._tag === "Round") action(`${event.origin} takes along: ${event.children.slice(1).join(", ")}`)
}
