// Prints the size of what a page loads, minified and compressed, and fails when it is over its budget.
import { gzipSync } from 'node:zlib';
import { build } from 'esbuild';

const parts = [
  { name: 'all transports', code: "export { StreamerClient } from './src/index.ts'", budget: 11_600 },
  { name: 'WebSocket only', code: "export { StreamerClient } from './src/websocket.ts'", budget: 8900 },
  {
    name: 'React part',
    code: "export * from './src/react.ts'",
    budget: 1536,
    external: ['./index.js', './client.js', './error.js'],
  },
];

let over = false;
console.log('part              min   gzip  budget');
for (const { name, code, budget, external = [] } of parts) {
  const { outputFiles } = await build({
    stdin: { contents: code, resolveDir: '.', loader: 'ts' },
    bundle: true,
    minify: true,
    format: 'esm',
    target: 'es2022',
    write: false,
    external: ['react', 'react/jsx-runtime', ...external],
  });
  const bytes = outputFiles[0].contents;
  const packed = gzipSync(bytes, { level: 9 }).length;
  over ||= packed > budget;
  console.log(
    `${name.padEnd(15)} ${String(bytes.length).padStart(6)} ${String(packed).padStart(6)} ${String(budget).padStart(7)}${packed > budget ? '  over' : ''}`,
  );
}
process.exit(over ? 1 : 0);
