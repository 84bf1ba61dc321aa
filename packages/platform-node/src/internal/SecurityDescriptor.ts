/** Who may open what on Windows, as bytes: accounts (SIDs) and self-relative security descriptors. */

/** The account in a TOKEN_USER: its SID, which stands behind a pointer and attributes. */
export const userSid = (tokenUser: Buffer): Buffer => sidAt(tokenUser, 16)

const sidAt = (buffer: Buffer, at: number): Buffer =>
  Buffer.from(buffer.subarray(at, at + 8 + 4 * buffer.readUInt8(at + 1)))

/** `S-1-5-18`. */
export const sidText = (sid: Buffer): string => {
  const parts = Array.from({ length: sid.readUInt8(1) }, (_, index) => sid.readUInt32LE(8 + 4 * index))
  return ["S", sid.readUInt8(0), sid.readUIntBE(2, 6), ...parts].join("-")
}

const SE_DACL_PRESENT = 0x4
const SE_DACL_PROTECTED = 0x1000
const SE_SELF_RELATIVE = 0x8000
const FILE_ALL_ACCESS = 0x1f_01ff
const INHERIT = 0x3
const INHERIT_ONLY = 0x8

/**
 * A descriptor whose protected list of one entry gives one account everything, and nobody else anything. `inherited`: so
 * does what is made in the folder.
 */
export const onlyFor = (sid: Buffer, { inherited = false }: { readonly inherited?: boolean } = {}): Buffer => {
  const list = 20
  const entry = list + 8
  const buffer = Buffer.alloc(entry + 8 + sid.length)
  buffer.writeUInt8(1, 0)
  buffer.writeUInt16LE(SE_DACL_PRESENT | SE_DACL_PROTECTED | SE_SELF_RELATIVE, 2)
  buffer.writeUInt32LE(list, 16)
  // ACL_REVISION, its size, one entry
  buffer.writeUInt8(2, list)
  buffer.writeUInt16LE(buffer.length - list, list + 2)
  buffer.writeUInt16LE(1, list + 4)
  // ACCESS_ALLOWED_ACE
  buffer.writeUInt8(inherited ? INHERIT : 0, entry + 1)
  buffer.writeUInt16LE(buffer.length - entry, entry + 2)
  buffer.writeUInt32LE(FILE_ALL_ACCESS, entry + 4)
  sid.copy(buffer, entry + 8)
  return buffer
}

/** SECURITY_ATTRIBUTES of something that no child inherits. The address must stay valid. */
export const securityAttributes = (descriptor: bigint): Buffer => {
  const size = 24
  const buffer = Buffer.alloc(size)
  buffer.writeUInt32LE(size, 0)
  buffer.writeBigUInt64LE(descriptor, 8)
  return buffer
}

/** The system and its administrators, who can have everything anyway. */
const masters: ReadonlySet<string> = new Set(["S-1-5-18", "S-1-5-32-544"])

/** Rights of the owner, who is looked at by name. */
const ownerRights = "S-1-3-4"

/** Whoever makes something in a folder: for what an entry says of him, only what is made counts. */
const creatorOwner = "S-1-3-0"

/** Kinds of entries that allow: plain, by object, by condition, both. */
const allows: ReadonlySet<number> = new Set([0, 5, 9, 11])

/** Flags that say whether a kind and an inherited kind stand before the SID of an entry by object. */
const objectKinds: ReadonlySet<number> = new Set([5, 11])

const sidOf = (entry: Buffer): string => {
  if (!objectKinds.has(entry.readUInt8(0))) return sidText(sidAt(entry, 8))
  const flags = entry.readUInt32LE(8)
  return sidText(sidAt(entry, 12 + ((flags & 1) === 0 ? 0 : 16) + ((flags & 2) === 0 ? 0 : 16)))
}

/**
 * Why something with this descriptor is not for the account `own` alone, or undefined. The system and administrators do
 * not count. An entry that denies is not looked at: it only takes away.
 */
export const exposure = (descriptor: Buffer, own: Buffer): string | undefined => {
  const mine = sidText(own)
  const ownerAt = descriptor.readUInt32LE(4)
  const owner = ownerAt === 0 ? undefined : sidText(sidAt(descriptor, ownerAt))
  if (owner !== undefined && owner !== mine && !masters.has(owner)) return `belongs to another user (${owner})`
  const listAt = descriptor.readUInt32LE(16)
  // Without a list everybody may do everything.
  if ((descriptor.readUInt16LE(2) & SE_DACL_PRESENT) === 0 || listAt === 0) return "may be opened by everybody"
  let at = listAt + 8
  for (let left = descriptor.readUInt16LE(listAt + 4); left > 0; left--) {
    const entry = descriptor.subarray(at)
    at += entry.readUInt16LE(2)
    if (!allows.has(entry.readUInt8(0))) continue
    const sid = sidOf(entry)
    // What is made in a folder will be for whoever makes it; any other entry for it lets somebody in.
    if ((entry.readUInt8(1) & INHERIT_ONLY) !== 0 && sid === creatorOwner) continue
    if (entry.readUInt32LE(4) !== 0 && sid !== mine && sid !== ownerRights && !masters.has(sid)) {
      return `may be opened by others (${sid})`
    }
  }
  return undefined
}
