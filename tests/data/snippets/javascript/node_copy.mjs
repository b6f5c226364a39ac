#!/usr/bin/env node
import { readFile, writeFile } from 'node:fs/promises';

const [source, target] = process.argv.slice(2);
try {
  await writeFile(target, await readFile(source));
} catch (error) {
  console.error(error.message);
  process.exit(1);
}
