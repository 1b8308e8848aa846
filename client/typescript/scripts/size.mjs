// Prints the size of what a page loads of the package as it is shipped, bundled, minified and compressed, and
// fails when it is over its budget.
import { gzipSync } from 'node:zlib';
import { build } from 'esbuild';

const parts = [
  { name: 'all transports', code: "export { StreamerClient } from './dist/index.js'", budget: 6144 },
  { name: 'WebSocket only', code: "export { StreamerClient } from './dist/websocket.js'", budget: 4608 },
  { name: 'React part', code: "export * from './dist/react.js'", budget: 1536 },
];

let over = false;
console.log('part              min   gzip  budget');
for (const { name, code, budget } of parts) {
  const { outputFiles } = await build({
    stdin: { contents: code, resolveDir: '.' },
    bundle: true,
    minify: true,
    format: 'esm',
    target: 'es2022',
    write: false,
    external: ['react', 'react/jsx-runtime'],
  });
  const bytes = outputFiles[0].contents;
  const packed = gzipSync(bytes, { level: 9 }).length;
  over ||= packed > budget;
  console.log(
    `${name.padEnd(15)} ${String(bytes.length).padStart(6)} ${String(packed).padStart(6)} ${String(budget).padStart(7)}${packed > budget ? '  over' : ''}`,
  );
}
process.exit(over ? 1 : 0);
