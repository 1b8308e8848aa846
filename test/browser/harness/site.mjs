import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import { createServer, request } from 'node:http';
import { connect } from 'node:net';
import { extname, join, normalize } from 'node:path';

const types = {
  '.html': 'text/html; charset=utf-8',
  '.js': 'text/javascript; charset=utf-8',
  '.mjs': 'text/javascript; charset=utf-8',
  '.css': 'text/css; charset=utf-8',
  '.svg': 'image/svg+xml',
};

/**
 * A web server as it stands in front of a service: it has files, and hands everything else on to the
 * service, with HTTP/1.1 on both sides. It can behave as proxies are known to.
 */
export class Site {
  #server;
  #folders;
  #target;
  #tunnels = new Set();
  /** What happens to an upgrade: undefined, refuse (it is answered 403) or ignore (it is never answered). */
  upgrades;
  /** Whether event streams are kept back until they have ended. */
  buffering = false;
  /** What is left of the next answers, as text: each is cut off after it. */
  stumps = [];
  /** Event streams and long polls that are open now, and the most there were at once. */
  held = 0;
  opened = 0;
  mostHeld = 0;
  /** Paths that were called at the service, the newest last. */
  calls = [];

  /** folders maps the start of a path to a folder of files; target is the port of the service. */
  static async start(folders, target) {
    const site = new Site();
    site.#folders = Object.entries(folders);
    site.#target = target;
    site.#server = createServer((req, res) => site.#answer(req, res));
    site.#server.keepAliveTimeout = 30_000;
    site.#server.on('upgrade', (req, socket, head) => site.#upgrade(req, socket, head));
    site.#server.listen(0, '127.0.0.1');
    await once(site.#server, 'listening');
    site.port = site.#server.address().port;
    return site;
  }

  /** WebSockets that are open. */
  get tunnels() {
    return this.#tunnels.size;
  }

  async close() {
    this.#server.close();
    this.#server.closeAllConnections();
    for (const socket of this.#tunnels) socket.destroy();
    await once(this.#server, 'close');
  }

  async #answer(req, res) {
    const path = normalize(new URL(req.url, 'http://site').pathname);
    for (const [start, folder] of this.#folders) {
      if (!path.startsWith(start)) continue;
      const name = path.slice(start.length) || 'index.html';
      const content = await readFile(join(folder, name)).catch(() => undefined);
      if (content === undefined) continue;
      res.writeHead(200, {
        'content-type': types[extname(name)] ?? 'application/octet-stream',
        'cache-control': 'no-cache',
      });
      res.end(content);
      return;
    }
    this.#hand(req, res);
  }

  #note(path) {
    this.calls.push(path);
    if (this.calls.length > 1000) this.calls.shift();
  }

  #hand(req, res) {
    this.#note(`${req.method} ${req.url}`);
    if (this.stumps.length) {
      req.socket.end(this.stumps.shift());
      return;
    }
    const holds = /^text\/event-stream/.test(req.headers.accept) || /wait=/.test(req.headers.prefer);
    if (holds) {
      this.mostHeld = Math.max(this.mostHeld, ++this.held);
      this.opened++;
      res.once('close', () => this.held--);
    }
    const out = request(
      { host: '127.0.0.1', port: this.#target, method: req.method, path: req.url, headers: req.headers, agent: false },
      (answer) => {
        const stream = answer.headers['content-type']?.startsWith('text/event-stream');
        const kept = this.buffering && stream ? [] : undefined;
        if (!kept) {
          res.writeHead(answer.statusCode, answer.headers);
          res.flushHeaders();
        }
        answer.on('data', (bytes) => {
          if (kept) kept.push(bytes);
          else if (!res.write(bytes)) {
            answer.pause();
            res.once('drain', () => answer.resume());
          }
        });
        answer.on('end', () => {
          if (kept) res.writeHead(answer.statusCode, answer.headers);
          res.end(kept && Buffer.concat(kept));
        });
        answer.on('error', () => res.destroy());
      },
    );
    out.on('error', () => {
      if (res.headersSent) res.destroy();
      else res.writeHead(502).end();
    });
    res.on('close', () => out.destroy());
    req.on('error', () => out.destroy());
    req.pipe(out);
  }

  #upgrade(req, socket, head) {
    this.#note(`UPGRADE ${req.url}`);
    this.#tunnels.add(socket);
    socket.on('error', () => {});
    socket.once('close', () => this.#tunnels.delete(socket));
    if (this.upgrades === 'ignore') return;
    if (this.upgrades === 'refuse') {
      socket.end('HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n');
      return;
    }
    const far = connect(this.#target, '127.0.0.1', () => {
      const lines = [`GET ${req.url} HTTP/1.1`];
      for (let i = 0; i < req.rawHeaders.length; i += 2) lines.push(`${req.rawHeaders[i]}: ${req.rawHeaders[i + 1]}`);
      far.write(`${lines.join('\r\n')}\r\n\r\n`);
      far.write(head);
      far.pipe(socket);
      socket.pipe(far);
    });
    far.on('error', () => {});
    far.once('close', () => socket.destroy());
    socket.once('close', () => far.destroy());
  }
}
