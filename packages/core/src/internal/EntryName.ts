/** Names in an archive: which ones stay in the directory that they are unpacked to. */

/** Without the `./` in front and the slash behind that tools write; the directory itself is empty. */
export const normalize = (path: string): string => path.replace(/^(\.\/+)+/, "").replace(/\/+$/, "").replace(/^\.$/, "")

/** The folder that an entry stands in; empty for the directory itself. */
export const parentOf = (name: string): string => name.slice(0, Math.max(0, name.lastIndexOf("/")))

/** What Windows takes for a drive, a stream, a device or another name. */
const notOnWindows = /[\\:*?"<>|]|[. ]$|^(con|prn|aux|nul|com\d|lpt\d)(\.|$)/i

/** Why a normalized name can't be unpacked; undefined where it can. `separator` is that of the system's paths. */
export const problemOf = (name: string, separator: string): string | undefined => {
  if (name === "") return "the directory itself comes twice"
  if (name.startsWith("/")) return "its name is absolute"
  if (name.includes("\0")) return "its name contains a NUL character"
  const parts = name.split("/")
  if (parts.some((part) => part === "" || part === "." || part === "..")) return "its name leads out of its folder"
  if (separator === "\\" && parts.some((part) => notOnWindows.test(part))) return "Windows has no such name"
  return undefined
}
