/** Checks probes at the edge. */
import * as Redacted from "effect/Redacted"
import * as Result from "effect/Result"
import { InvalidSpec } from "../Errors.ts"
import type { Address } from "../Network.ts"
import type { Http, Probe } from "../Probe.ts"
import * as Web from "./Web.ts"

const isWholeFrom = (value: unknown, min: number, max: number): boolean =>
  typeof value === "number" && Number.isSafeInteger(value) && value >= min && value <= max

const addressProblem = (address: Address): string | undefined => {
  if ("path" in address) {
    if (address.path === "") return "the path is empty"
    return address.path.includes("\0") ? "the path contains a NUL character" : undefined
  }
  if (address.host === "") return "the host is empty"
  return isWholeFrom(address.port, 1, 65535) ? undefined : "the port must be a whole number from 1 to 65535"
}

/** A name of a header: a token of RFC 9110, 5.6.2. */
const token = /^[!#$%&'*+.^_`|~0-9A-Za-z-]+$/

/** What a header's value can't hold: control characters, and what is no byte (RFC 9110, 5.5). */
const unusable = /[^\t\x20-\x7e\x80-\xff]/

/** The URL, where it is one that can be asked. */
export const parseUrl = (url: string): Web.Url | undefined => {
  try {
    const parsed = Web.parseUrl(url)
    return (parsed.protocol === "http:" || parsed.protocol === "https:") && parsed.port !== "0" ? parsed : undefined
  } catch {
    return undefined
  }
}

const httpProblem = ({ body, headers, status, url }: Http): readonly [field: string, problem: string] | undefined => {
  if (typeof url !== "string" || parseUrl(url) === undefined) return ["url", "must be a URL of http or https"]
  if (
    typeof status !== "function" &&
    !(isWholeFrom(status.min, 100, 599) && isWholeFrom(status.max, status.min, 599))
  ) {
    return ["status", "must be a range from 100 to 599 or a function"]
  }
  for (const [name, value] of Object.entries(headers)) {
    if (!token.test(name)) return ["headers", "a name is not usable"]
    if (unusable.test(Redacted.isRedacted(value) ? Redacted.value(value) : value)) {
      return [`headers.${name}`, "the value has a character that a header can't hold"]
    }
  }
  return body === undefined || typeof body === "function" || body instanceof RegExp
    ? undefined
    : ["body", "must be a regular expression or a function"]
}

const problemOf = (probe: Probe): readonly [field: string, problem: string] | undefined => {
  switch (probe._tag) {
    case "Line":
      if (!["stdout", "stderr", "any"].includes(probe.stream)) return ["stream", "must be stdout, stderr, or any"]
      if (probe.pattern instanceof RegExp) return undefined
      if (typeof probe.pattern !== "string") return ["pattern", "must be a string or a regular expression"]
      if (probe.pattern === "") return ["pattern", "is empty, so the first line of any kind would match"]
      return /[\r\n]/.test(probe.pattern) ? ["pattern", "no line contains a line end"] : undefined
    case "Fd":
      return isWholeFrom(probe.fd, 1, Number.MAX_SAFE_INTEGER)
        ? undefined
        : ["fd", "must be a descriptor that the child writes: a whole number of 1 or more"]
    case "Tcp": {
      const problem = addressProblem(probe.address)
      return problem === undefined ? undefined : ["address", problem]
    }
    case "Http":
      return httpProblem(probe)
    case "Exec":
      if (probe.command?._tag !== "StandardCommand") return ["command", "must be one command, not a pipeline"]
      return probe.command.command === "" ? ["command", "is empty"] : undefined
    case "Check":
      return probe.name === "" ? ["name", "is empty"] : undefined
  }
}

/** The probe itself when it can be used. */
export const validate = (field: string, probe: Probe): Result.Result<Probe, InvalidSpec> => {
  const problem = problemOf(probe)
  return problem === undefined
    ? Result.succeed(probe)
    : Result.fail(new InvalidSpec({ field: `${field}.${problem[0]}`, problem: problem[1] }))
}
