/** Whether a request shows the token of a server. */
import * as Redacted from "effect/Redacted"
import { bearer } from "../daemon/Control.ts"
import { ControlDenied } from "../Errors.ts"
import * as Tokens from "./Tokens.ts"

/** What is wrong with the value of the header, or undefined; nothing ever is without a token. */
export type Check = (shown: string | undefined) => ControlDenied | undefined

export const check = (token: Redacted.Redacted<string> | undefined): Check => {
  if (token === undefined) return () => undefined
  const tokens = new Tokens.Tokens<true>()
  tokens.add(Redacted.value(token), true)
  return (shown = "") =>
    shown.startsWith(bearer) && tokens.find(shown.slice(bearer.length)) === true
      ? undefined
      : new ControlDenied({ reason: "BadToken", detail: shown === "" ? "no token was shown" : "a wrong token" })
}
