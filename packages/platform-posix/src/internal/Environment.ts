/** The environment of a child: the host's own with changes, or these alone. */
export interface Environment {
  readonly inherits: boolean
  /** By name; undefined takes a variable away. */
  readonly changes: Readonly<Record<string, string | undefined>>
}

export const get = ({ changes, inherits }: Environment, name: string): string | undefined =>
  inherits && !Object.hasOwn(changes, name) ? process.env[name] : changes[name]

/** All variables. It reads the whole environment of the host, which takes 1 us a variable. */
export const toRecord = ({ changes, inherits }: Environment): Record<string, string> => {
  const record: Record<string, string> = {}
  for (const variables of inherits ? [process.env, changes] : [changes]) {
    for (const [name, value] of Object.entries(variables)) {
      if (value === undefined) delete record[name]
      else record[name] = value
    }
  }
  return record
}
