/** Tables of states: for each state and each event, the state that follows. */

export type Table<State extends string, Event extends string> = Readonly<Record<State, Readonly<Record<Event, State>>>>

/** The table as a Mermaid state diagram; events that lead to the same state share an arrow. */
export const toMermaid = <State extends string, Event extends string>(
  table: Table<State, Event>,
  initial: State
): string => {
  const lines = ["stateDiagram-v2", `  [*] --> ${initial}`]
  for (const [from, events] of Object.entries<Readonly<Record<Event, State>>>(table)) {
    const arrows = new Map<string, Array<string>>()
    for (const [event, to] of Object.entries<State>(events)) {
      if (to !== from) arrows.set(to, [...arrows.get(to) ?? [], event])
    }
    for (const [to, labels] of arrows) lines.push(`  ${from} --> ${to}: ${labels.join(", ")}`)
  }
  return `${lines.join("\n")}\n`
}
