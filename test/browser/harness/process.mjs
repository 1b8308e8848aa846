import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createServer } from 'node:net';
import { createInterface } from 'node:readline';

/** Returns a port that is free now, so that a server can be started on it again and again. */
export async function freePort() {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address();
  server.close();
  await once(server, 'close');
  return port;
}

/**
 * A Go server that can be stopped and started again at the same address. ready is what it prints when it
 * serves.
 */
export class Service {
  #file;
  #args;
  #ready;
  #env;
  #child;
  #gone = Promise.resolve();
  #log = [];

  constructor(file, port, args, ready, env = {}) {
    this.port = port;
    this.#file = file;
    this.#env = env;
    this.#args = ['-addr', `127.0.0.1:${port}`, ...args];
    this.#ready = ready;
  }

  async start() {
    const child = spawn(this.#file, this.#args, {
      stdio: ['ignore', 'pipe', 'pipe'],
      env: { ...process.env, ...this.#env },
    });
    this.#child = child;
    const abandon = () => child.kill('SIGKILL');
    process.once('exit', abandon);
    this.#gone = new Promise((resolve) => {
      child.once('exit', () => {
        process.off('exit', abandon);
        resolve();
      });
    });
    const note = (line) => {
      this.#log.push(line);
      if (this.#log.length > 200) this.#log.shift();
    };
    createInterface({ input: child.stderr }).on('line', note);
    const lines = createInterface({ input: child.stdout }).on('line', note);
    const ready = new Promise((resolve) => {
      lines.on('line', (line) => {
        if (this.#ready.test(line)) resolve(true);
      });
    });
    if (!(await Promise.race([ready, this.#gone]))) {
      throw new Error(`${this.#file} ended before it served. It said:\n${this.log}`);
    }
  }

  /** What the server printed last. */
  get log() {
    return this.#log.join('\n');
  }

  /** Sends the signal, and waits for the end. */
  async stop(signal = 'SIGTERM') {
    this.#child?.kill(signal);
    await this.#gone;
  }

  async restart(signal = 'SIGTERM') {
    await this.stop(signal);
    await this.start();
  }
}
