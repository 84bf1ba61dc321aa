#!/usr/bin/env node
import { main } from "./internal/Main.ts"

void main(process.argv.slice(2))
