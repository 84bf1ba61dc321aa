/**
 * The suite that every platform is held against, on WindowsPlatform.
 */
import { Conformance } from "@treeline/core/testing"
import { WindowsPlatform } from "@treeline/platform-windows"
import { capabilities } from "./support/Capabilities.ts"

Conformance.suite("WindowsPlatform", WindowsPlatform.layer, capabilities)
