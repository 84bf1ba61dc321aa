/**
 * Who may do what, as the system tells it. Accounts are SIDs, in hex.
 */
import koffi from "koffi"

const advapi32 = koffi.load("advapi32.dll")
const kernel32 = koffi.load("kernel32.dll")
const getSecurity = advapi32.func(
  "int __stdcall GetKernelObjectSecurity(uintptr_t handle, uint32_t what, void *descriptor, uint32_t length, void *needed)"
)
const openToken = advapi32.func("int __stdcall OpenProcessToken(uintptr_t process, uint32_t access, void *out)")
const tokenInformation = advapi32.func(
  "int __stdcall GetTokenInformation(uintptr_t token, int what, void *info, uint32_t length, void *needed)"
)
const sidLength = advapi32.func("uint32_t __stdcall GetLengthSid(void *sid)")
const getFileSecurity = advapi32.func(
  "int __stdcall GetFileSecurityW(void *name, uint32_t what, void *descriptor, uint32_t length, void *needed)"
)
const self = kernel32.func("uintptr_t __stdcall GetCurrentProcess()")
const close = kernel32.func("int __stdcall CloseHandle(uintptr_t handle)")

const accountAt = (bytes: Buffer): string => bytes.toString("hex", 0, sidLength(bytes))

const DACL_SECURITY_INFORMATION = 4

const entriesOf = (descriptor: Buffer) => {
  const list = descriptor.subarray(descriptor.readUInt32LE(16))
  let at = 8
  return Array.from({ length: list.readUInt16LE(4) }, () => {
    const entry = list.subarray(at)
    at += entry.readUInt16LE(2)
    return { allows: entry.readUInt8(0) === 0, mask: entry.readUInt32LE(4), account: accountAt(entry.subarray(8)) }
  })
}

/** The entries of the list that says who may open the object. */
export const accessListOf = (handle: number | bigint) => {
  const descriptor = Buffer.alloc(4096)
  if (getSecurity(handle, DACL_SECURITY_INFORMATION, descriptor, descriptor.length, new Uint32Array(1)) === 0) {
    throw new Error("the descriptor can't be read")
  }
  return entriesOf(descriptor)
}

/** The accounts that may do anything with a file or folder. */
export const accountsOfFile = (file: string): ReadonlySet<string> => {
  const descriptor = Buffer.alloc(4096)
  const name = Buffer.from(`${file}\0`, "utf16le")
  if (getFileSecurity(name, DACL_SECURITY_INFORMATION, descriptor, descriptor.length, new Uint32Array(1)) === 0) {
    throw new Error(`the descriptor of ${file} can't be read`)
  }
  return new Set(entriesOf(descriptor).filter(({ allows }) => allows).map(({ account }) => account))
}

/** The system itself, S-1-5-18. */
export const systemAccount = "010100000000000512000000"

/** The account of the user who runs this process. */
export const accountOfThisProcess = (): string => {
  const [TOKEN_QUERY, TokenUser] = [8, 1]
  const token = new BigUint64Array(1)
  openToken(self(), TOKEN_QUERY, token)
  const user = Buffer.alloc(256)
  tokenInformation(token[0]!, TokenUser, user, user.length, new Uint32Array(1))
  close(token[0]!)
  const address = user.readBigUInt64LE(0)
  return accountAt(user.subarray(Number(address - koffi.address(user))))
}
