// Writes the client as one file for the demo page, which has no build step of its own. With --check it
// writes nothing, and fails when the file is not what it would write.
import { readFile, writeFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';
import { options } from './options.mjs';

const target = fileURLToPath(new URL('../../../examples/quickstart/web/streamer.js', import.meta.url));
const result = await build({
  ...options,
  entryPoints: [fileURLToPath(new URL('../src/index.ts', import.meta.url))],
  lineLimit: 120,
  banner: {
    js: '// The client of client/typescript. Written by its scripts/demo.mjs: change the source, not this file.',
  },
  write: false,
});
const made = result.outputFiles[0].text;

if (process.argv.includes('--check')) {
  const there = await readFile(target, 'utf8').catch(() => '');
  if (there !== made) {
    console.error('examples/quickstart/web/streamer.js is not what the client is now: run "node scripts/demo.mjs"');
    process.exit(1);
  }
} else {
  await writeFile(target, made);
  console.log(`wrote examples/quickstart/web/streamer.js, ${made.length} bytes`);
}
