// Makes dist of src: one minified file an entry, which needs no other. tsc writes the types.
import { rm } from 'node:fs/promises';
import { build } from 'esbuild';
import { options } from './options.mjs';

await rm('dist', { recursive: true, force: true });
for (const name of ['index', 'websocket', 'storage', 'react', 'testing']) {
  await build({
    ...options,
    entryPoints: [`src/${name}.ts`],
    outdir: 'dist',
    packages: 'external',
    sourcemap: true,
    sourcesContent: false,
  });
}
