/**
 * Files and folders of Windows that only this user may open, through koffi, an optional dependency. Node has no words for
 * it: the mode of a file says nothing there. Where koffi can't be had nothing is judged, as on a system without users.
 */
import * as fs from "node:fs"
import { createRequire } from "node:module"
import * as path from "node:path"
import * as SecurityDescriptor from "./SecurityDescriptor.ts"

type Handle = number | bigint

interface Calls {
  readonly lastError: () => number
  readonly CloseHandle: (handle: Handle) => number
  readonly CreateFileW: (
    name: Buffer,
    access: number,
    share: number,
    security: Buffer,
    disposition: number,
    flags: number,
    template: Handle
  ) => Handle
  readonly CreateDirectoryW: (name: Buffer, security: Buffer) => number
  readonly GetFileSecurityW: (name: Buffer, what: number, out: Buffer, length: number, needed: Uint32Array) => number
  readonly address: (buffer: Buffer) => bigint
  readonly sid: Buffer
}

interface Koffi {
  readonly load: (path: string) => { readonly func: (prototype: string) => never }
  readonly address: (value: unknown) => bigint
}

const TOKEN_QUERY = 8
const TokenUser = 1
const OWNER_AND_DACL = 0x1 | 0x4
const GENERIC_WRITE = 0x4000_0000
const CREATE_NEW = 1
const ERROR_FILE_NOT_FOUND = 2
const ERROR_PATH_NOT_FOUND = 3
const ERROR_INSUFFICIENT_BUFFER = 122
const ERROR_FILE_EXISTS = 80
const ERROR_ALREADY_EXISTS = 183

const readSid = (koffi: Koffi): Buffer | undefined => {
  const kernel32 = koffi.load("kernel32.dll")
  const advapi32 = koffi.load("advapi32.dll")
  const self: () => Handle = kernel32.func("uintptr_t __stdcall GetCurrentProcess()")
  const close: (handle: Handle) => number = kernel32.func("int __stdcall CloseHandle(uintptr_t handle)")
  const openToken: (process: Handle, access: number, out: BigUint64Array) => number = advapi32.func(
    "int __stdcall OpenProcessToken(uintptr_t process, uint32_t access, void *out)"
  )
  const information: (token: Handle, what: number, info: Buffer, length: number, out: Uint32Array) => number = advapi32
    .func("int __stdcall GetTokenInformation(uintptr_t token, int what, void *info, uint32_t length, void *out)")
  const out = new BigUint64Array(1)
  if (openToken(self(), TOKEN_QUERY, out) === 0) return undefined
  const user = Buffer.alloc(256)
  const read = information(out[0]!, TokenUser, user, user.length, new Uint32Array(1))
  close(out[0]!)
  return read === 0 ? undefined : SecurityDescriptor.userSid(user)
}

const open = (): Calls | undefined => {
  const koffi = createRequire(import.meta.url)("koffi") as Koffi
  const sid = readSid(koffi)
  if (sid === undefined) return undefined
  const kernel32 = koffi.load("kernel32.dll")
  return {
    lastError: kernel32.func("uint32_t __stdcall GetLastError()"),
    CloseHandle: kernel32.func("int __stdcall CloseHandle(uintptr_t handle)"),
    CreateFileW: kernel32.func(
      "uintptr_t __stdcall CreateFileW(void *name, uint32_t access, uint32_t share, void *security, uint32_t disposition, uint32_t flags, uintptr_t template)"
    ),
    CreateDirectoryW: kernel32.func("int __stdcall CreateDirectoryW(void *name, void *security)"),
    GetFileSecurityW: koffi.load("advapi32.dll").func(
      "int __stdcall GetFileSecurityW(void *name, uint32_t what, void *out, uint32_t length, void *needed)"
    ),
    address: koffi.address,
    sid
  }
}

let loaded: { readonly calls: Calls | undefined } | undefined = undefined

const load = (): Calls | undefined => {
  if (loaded === undefined) {
    try {
      loaded = { calls: process.platform === "win32" ? open() : undefined }
    } catch {
      loaded = { calls: undefined }
    }
  }
  return loaded.calls
}

/** The account that this process runs under; undefined where it can't be told. */
export const ownSid = (): Buffer | undefined => load()?.sid

/** As Node's own calls have it: a path may be longer than MAX_PATH. */
const wide = (name: string): Buffer => Buffer.from(`${path.toNamespacedPath(name)}\0`, "utf16le")

/** The descriptor of the call that is going on: the system has only its address, so the collector must not take it. */
const held: { descriptor: Buffer | undefined } = { descriptor: undefined }

/** Calls with SECURITY_ATTRIBUTES for this user alone. */
const onlyMine = <A>(calls: Calls, inherited: boolean, use: (security: Buffer) => A): A => {
  const descriptor = SecurityDescriptor.onlyFor(calls.sid, { inherited })
  held.descriptor = descriptor
  try {
    return use(SecurityDescriptor.securityAttributes(calls.address(descriptor)))
  } finally {
    held.descriptor = undefined
  }
}

const isExisting = (code: number): boolean => code === ERROR_ALREADY_EXISTS || code === ERROR_FILE_EXISTS

const failure = (code: number): NodeJS.ErrnoException =>
  Object.assign(new Error(`error ${code}`), { code: isExisting(code) ? "EEXIST" : `error ${code}` })

/**
 * Makes a folder that only this user may enter, and what will be in it only this user may open. What is there already is
 * left as it is. False where this can't be had.
 */
export const makeFolder = (folder: string): boolean => {
  const calls = load()
  if (calls === undefined) return false
  if (onlyMine(calls, true, (security) => calls.CreateDirectoryW(wide(folder), security)) !== 0) return true
  const code = calls.lastError()
  if (!isExisting(code)) throw failure(code)
  return true
}

/** Makes an empty file that only this user may open; fails when there is something. False where this can't be had. */
export const makeFile = (file: string): boolean => {
  const calls = load()
  if (calls === undefined) return false
  const handle = onlyMine(
    calls,
    false,
    (security) => calls.CreateFileW(wide(file), GENERIC_WRITE, 0, security, CREATE_NEW, 0, 0)
  )
  if (handle === -1 || handle === 0xffff_ffff_ffff_ffffn) throw failure(calls.lastError())
  calls.CloseHandle(handle)
  return true
}

/** Why a file or folder is not for this user alone, or undefined; also where there is none, and where nobody can tell. */
export const problemOf = (file: string): string | undefined => {
  const calls = load()
  if (calls === undefined) return undefined
  const needed = new Uint32Array(1)
  for (let length = 1024;; length = needed[0]!) {
    const descriptor = Buffer.alloc(length)
    if (calls.GetFileSecurityW(wide(file), OWNER_AND_DACL, descriptor, length, needed) !== 0) {
      return SecurityDescriptor.exposure(descriptor, calls.sid)
    }
    const code = calls.lastError()
    const isMissing = code === ERROR_FILE_NOT_FOUND || code === ERROR_PATH_NOT_FOUND
    if (isMissing && !fs.existsSync(file)) return undefined
    if (code !== ERROR_INSUFFICIENT_BUFFER || needed[0]! <= length) {
      return `does not tell who may open it (error ${code})`
    }
  }
}
