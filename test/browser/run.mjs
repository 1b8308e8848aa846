// Builds what the tests need into a folder of its own, and runs them: node run.mjs [word in the file's name …]
import { spawnSync } from 'node:child_process';
import { cpSync, existsSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const here = fileURLToPath(new URL('.', import.meta.url));
const root = fileURLToPath(new URL('../..', import.meta.url));
const client = join(root, 'client/typescript');
const react = join(root, 'examples/react');

const words = process.argv.slice(2);
const files = readdirSync(here).filter(
  (f) => f.endsWith('.test.mjs') && (!words.length || words.some((w) => f.includes(w))),
);
const built = mkdtempSync(join(tmpdir(), 'streamer-browser-'));

function run(dir, command, ...args) {
  const { status, error } = spawnSync(command, args, {
    cwd: dir,
    stdio: 'inherit',
    env: { ...process.env, STREAMER_BUILT: built },
  });
  if (error || status) throw new Error(`${command} ${args.join(' ')}: ${error?.message ?? `status ${status}`}`);
}

let status = 0;
try {
  for (const dir of [here, client, react]) {
    if (!existsSync(join(dir, 'node_modules')))
      throw new Error(`${dir} has no node_modules: run ${join(here, 'install')}`);
  }
  run(root, 'go', 'build', '-o', built, './examples/lab', './examples/quickstart', './test/browser/cookies');
  run(client, 'npm', 'run', '--silent', 'build');
  cpSync(join(client, 'dist'), join(built, 'client'), { recursive: true });
  run(
    react,
    'npx',
    '--no-install',
    'vite',
    'build',
    '--logLevel',
    'warn',
    '--outDir',
    join(built, 'react'),
    '--emptyOutDir',
  );
  run(here, process.execPath, '--test', '--test-reporter=spec', '--test-concurrency=2', ...files);
} catch (e) {
  console.error(e.message);
  status = 1;
} finally {
  rmSync(built, { recursive: true, force: true });
}
process.exitCode = status;
