/**
 * Secrets by which children are recognised. A look-up reads every byte of every token that is known, whatever it is asked
 * for, so the time it takes tells nothing but how many there are.
 */

/** Bytes of a token. */
export const size = 32

/** Bytes are compared in words of four. */
const words = size / 4

export const toHex = (bytes: Uint8Array): string => {
  let text = ""
  for (const byte of bytes) text += byte.toString(16).padStart(2, "0")
  return text
}

/** The value of a hexadecimal digit, in either case; -1 for anything else. */
const digit = (code: number): number => {
  if (code >= 48 && code <= 57) return code - 48
  const letter = (code | 32) - 97
  return letter >= 0 && letter < 6 ? letter + 10 : -1
}

/** The words of a token; of what is no token, words that no token is compared equal with. */
const parse = (text: string): { readonly words: Int32Array; readonly valid: boolean } => {
  const parsed = new Int32Array(words)
  let valid = text.length === 2 * size
  for (let at = 0; at < 2 * size; at++) {
    const value = digit(text.charCodeAt(at))
    valid = value >= 0 && valid
    parsed[at >> 3] = (parsed[at >> 3]! << 4) | (value & 15)
  }
  return { words: parsed, valid }
}

/** Room for tokens at the beginning; it doubles. */
const initialRows = 16

export class Tokens<Owner> {
  private rows = new Int32Array(initialRows * words)
  private readonly owners: Array<Owner | undefined> = []
  private readonly vacant: Array<number> = []

  /** How many are known. */
  get count(): number {
    return this.owners.length - this.vacant.length
  }

  /** Makes a token known; returns what revokes it. */
  add(hex: string, owner: Owner): () => void {
    const row = this.vacant.pop() ?? this.owners.length
    if (this.rows.length < (row + 1) * words) {
      const rows = new Int32Array(2 * this.rows.length)
      rows.set(this.rows)
      this.rows = rows
    }
    this.rows.set(parse(hex).words, row * words)
    this.owners[row] = owner
    return () => {
      if (this.owners[row] !== owner) return
      this.rows.fill(0, row * words, (row + 1) * words)
      this.owners[row] = undefined
      this.vacant.push(row)
    }
  }

  /** Whose token this is. */
  find(token: string): Owner | undefined {
    const wanted = parse(token)
    const { rows } = this
    let found = 0
    for (let row = 0; row < this.owners.length; row++) {
      let difference = 0
      for (let word = 0; word < words; word++) difference |= rows[row * words + word]! ^ wanted.words[word]!
      // All ones where nothing differs, else 0: no branch depends on a secret.
      const same = ((difference | -difference) >>> 31) - 1
      // A row that is vacant is nobody's, whatever is in it; which ones are is no secret.
      const taken = this.owners[row] === undefined ? 0 : -1
      found |= same & taken & (row + 1)
    }
    return wanted.valid && found > 0 ? this.owners[found - 1] : undefined
  }
}
