/**
 * The suite of supervised children, on WindowsPlatform.
 */
import { ActorConformance } from "@treeline/core/testing"
import { WindowsPlatform } from "@treeline/platform-windows"
import { capabilities } from "./support/Capabilities.ts"

ActorConformance.suite("WindowsPlatform", WindowsPlatform.layer, capabilities)
