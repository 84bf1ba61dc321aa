/** What the example prints: one line for each event. */
import { ChildEnd, type ChildStatus, type Supervisor } from "@treeline/core"
import { action, line, type Style } from "../Lines.ts"

export { action, begin, heading, left } from "../Lines.ts"

const child = ({ at, change, child, incarnation }: ChildStatus.ChildEvent): void => {
  const say = (what: string, style?: Style) => line(at, child, what, style)
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
