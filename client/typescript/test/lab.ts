import { type ChildProcess, spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('../../..', import.meta.url));

/** A real server, examples/lab, in a process of its own. */
export interface Lab {
  addr: string;
  stop(): Promise<void>;
}

/** Starts the lab and returns when it is ready. */
export async function startLab(addr = '127.0.0.1:0'): Promise<Lab> {
  const process = spawn('go', ['run', './examples/lab', '-addr', addr, '-auth', 'dev'], {
    cwd: root,
    detached: true,
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const gone = new Promise<void>((resolve) => process.once('exit', () => resolve()));
  const ready = await Promise.race([firstLine(process), gone.then(() => undefined)]);
  if (!ready) throw new Error('the lab ended before it was ready');
  return {
    addr: ready.addr,
    async stop() {
      // go run has a child of its own, which the process group includes.
      if (process.pid) globalThis.process.kill(-process.pid, 'SIGTERM');
      await gone;
    },
  };
}

async function firstLine(process: ChildProcess): Promise<{ addr: string } | undefined> {
  if (!process.stdout) return undefined;
  for await (const line of createInterface({ input: process.stdout })) {
    const message = JSON.parse(line) as { ready?: boolean; addr: string };
    if (message.ready) return message;
  }
  return undefined;
}
