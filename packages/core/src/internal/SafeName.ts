/** Any text as a name that is one and the same in every file system, URL and object store. */
import * as Web from "./Web.ts"

/** File names have up to 255 bytes; a suffix has to have room, too. */
export const maxLength = 200

/** What Windows takes for a device. */
const device = /^(con|prn|aux|nul|com\d|lpt\d)$/

const escaped = (byte: number): string => `_${byte.toString(16).padStart(2, "0")}`

/**
 * Small letters, digits and `-` are themselves, each other byte of the UTF-8 is `_` and two hexadecimal digits, so no two
 * texts have one name, also where capitals count as small letters. Undefined for a text that would be too long.
 */
export const encode = (text: string): string | undefined => {
  if (text === "") return "_"
  const isDevice = device.test(text)
  let name = ""
  for (const [index, byte] of Web.textEncoder().encode(text).entries()) {
    const character = String.fromCharCode(byte)
    name += /[a-z0-9-]/.test(character) && !(isDevice && index === 0) ? character : escaped(byte)
    if (name.length > maxLength) return undefined
  }
  return name
}
